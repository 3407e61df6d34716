package cdc

import (
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"

	"example.com/tiffin/internal/checkup"
)

// Script is what a source database lacks, and why: complete, for its owner to read and run.
type Script struct {
	Head     []string
	Sections []Section
	// Fault is why the script is not complete, nil when it is.
	Fault error
}

// Section is one thing to prepare. Notes are comments; Later are statements that are the
// owner's to decide on or to run apart, and are comments too.
type Section struct {
	Name, Title string
	Notes       []string
	Steps       []Step
	Later       []Statement
}

// Statement is a command that the script shows and does not run.
type Statement struct {
	Text string
	// Then is what makes it take effect, "" when nothing is to be done.
	Then string
	// Why says what for.
	Why string
	// Needed says that without it the source cannot be followed.
	Needed bool
}

// String is the statement with what is to be done after it.
func (s Statement) String() string {
	if s.Then == "" {
		return s.Text
	}
	return s.Text + "   then: " + s.Then
}

// Steps are the statements that the database lacks, in the order of running.
func (s *Script) Steps() []Step {
	var all []Step
	for _, section := range s.Sections {
		all = append(all, section.Steps...)
	}
	return all
}

// Needed are the settings without which the source cannot be followed.
func (s *Script) Needed() []Statement {
	var all []Statement
	for _, section := range s.Sections {
		for _, l := range section.Later {
			if l.Needed {
				all = append(all, l)
			}
		}
	}
	return all
}

// String is the script as a file for psql. Whatever a name holds, what is a comment stays one.
func (s *Script) String() string {
	var b strings.Builder
	for _, line := range s.Head {
		comment(&b, "", line)
	}
	for i, section := range s.Sections {
		b.WriteByte('\n')
		comment(&b, fmt.Sprintf("%d. ", i+1), section.Title)
		for _, note := range section.Notes {
			comment(&b, "   ", note)
		}
		for _, step := range section.Steps {
			comment(&b, "   ", strings.ToUpper(step.Subject[:1])+step.Subject[1:]+" "+step.Why+"."+step.warning())
			if step.Obstacle != "" {
				comment(&b, "   ", "NOT NOW: "+step.Obstacle)
				comment(&b, "   ", step.SQL)
				continue
			}
			b.WriteString(step.SQL + "\n")
			if step.Settles != "" {
				b.WriteString(step.Settles + "\n")
			}
		}
		for _, l := range section.Later {
			comment(&b, "   ", l.Why+":")
			comment(&b, "       ", l.String())
		}
	}
	b.WriteByte('\n')
	comment(&b, "", s.summary())
	return b.String()
}

func (s Step) warning() string {
	if s.Alters == "" {
		return ""
	}
	return " This alters " + s.Alters + " (slotsetup apply does it only with --yes)."
}

func (s *Script) summary() string {
	steps, needed := len(s.Steps()), len(s.Needed())
	switch {
	case s.Fault != nil:
		return "Not complete: " + s.Fault.Error()
	case steps+needed == 0:
		return "Nothing is missing."
	case needed == 0:
		return fmt.Sprintf("Missing: %d statements.", steps)
	default:
		return fmt.Sprintf("Missing: %d statements, and %d settings of the server.", steps, needed)
	}
}

func comment(b *strings.Builder, indent, text string) {
	for _, line := range strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		b.WriteString("-- " + indent + line + "\n")
	}
}

// script makes the plan of what the survey found.
func (s *survey) script(cfg *Config) *Script {
	out := &Script{Head: s.head(cfg), Fault: s.fault}
	out.Sections = append(out.Sections, s.roleSection())
	if s.fault == nil {
		publication := s.publicationSection(cfg)
		slot := s.slotSection(cfg, len(publication.Steps) > 0)
		// The old slot goes before the publication is touched.
		for len(slot.Steps) > 0 && slot.Steps[0].part == partOldSlot {
			publication.Steps = append(slot.Steps[:1:1], publication.Steps...)
			slot.Steps = slot.Steps[1:]
		}
		out.Sections = append(out.Sections, s.rightsSection(), s.identitySection(cfg), publication, slot)
	}
	if err := s.slot.verify(cfg.Slot, s.server.database); err != nil && out.Fault == nil {
		out.Fault = err
	}
	out.Sections = append(out.Sections, s.settingsSection(cfg))
	out.name(s.subjects(cfg))
	out.hinder()
	return out
}

// subjects are what the steps' Why is said of.
func (s *survey) subjects(cfg *Config) map[part]string {
	role, slot := "role "+s.role.name, "slot "+cfg.Slot
	return map[part]string{
		partRole: role, partAttribute: role, partGrant: role, partIdentity: "the replica identity of " + cfg.Table,
		partOldSlot: slot, partSlot: slot, partPublication: "publication " + cfg.Publication,
	}
}

func (s *Script) name(subjects map[part]string) {
	for _, section := range s.Sections {
		for i := range section.Steps {
			section.Steps[i].Subject = subjects[section.Steps[i].part]
		}
	}
}

// hinder has what comes after a step that cannot run now wait as well.
func (s *Script) hinder() {
	var open []part
	for _, section := range s.Sections {
		for i := range section.Steps {
			step := &section.Steps[i]
			if step.Obstacle == "" && step.waitsFor(open) {
				step.Obstacle = "what must come before it cannot be done now"
			}
			if step.Obstacle != "" {
				open = append(open, step.part)
			}
		}
	}
}

func (s *survey) head(cfg *Config) []string {
	what := fmt.Sprintf("PostgreSQL %d.%d", s.server.version/10000, s.server.version%10000)
	if !s.asked {
		what = fmt.Sprintf("not asked: PostgreSQL %d or newer and the usual table are assumed", s.server.version/10000)
	} else if s.provider != selfManaged {
		what += " of " + string(s.provider)
	}
	return []string{
		fmt.Sprintf("What tiffin needs of the source database %s (%s), for the role %s.", s.server.database, what, s.role.name),
		"What is there already is only told; the rest is to be run from top to bottom, each statement by itself, as the owner of",
		cfg.Table + " (role and slot: as " + s.provider.admin() + "):  slotsetup plan | psql -X -v ON_ERROR_STOP=1 " + checkup.Word(s.server.database),
	}
}

func (s *survey) roleSection() Section {
	r, role := &s.role, quoted(s.role.name)
	out := Section{Name: "role", Title: "The daemon's role: it logs in and reads the log, and is nothing else."}
	step := func(p part, why, sql string) {
		one := Step{part: p, SQL: sql, Why: why}
		if r.exists {
			one.Alters = "role " + r.name
		}
		out.Steps = append(out.Steps, one)
	}
	if !r.exists {
		attributes := " LOGIN"
		if s.provider == selfManaged { // a customer cannot give what he lacks, but can make the role
			attributes += " REPLICATION"
		}
		step(partRole, "does not exist", "CREATE ROLE "+role+attributes+";")
		out.Later = append(out.Later, Statement{Text: `\password ` + role, Why: "It has no password then. psql sends only its hash, so that no log has it"})
		r = &roleFacts{login: true, replicates: strings.Contains(attributes, "REPLICATION"), bypasses: s.role.bypasses, read: s.role.read}
	}
	if !r.login {
		step(partAttribute, "may not log in", "ALTER ROLE "+role+" LOGIN;")
	}
	if !r.replicates {
		sql := "ALTER ROLE " + role + " REPLICATION;"
		if s.provider == amazonRDS {
			sql = "GRANT " + roleReplication + " TO " + role + ";"
		}
		step(partAttribute, "may not start replication", sql)
	}
	if r.read.filtered {
		step(partAttribute, "would not see all rows (row-level security), and the log shows all", "ALTER ROLE "+role+" BYPASSRLS;")
	}
	if len(out.Steps) == 0 {
		out.Notes = append(out.Notes, "It exists, and may log in and start replication.")
	}
	if s.provider == selfManaged {
		out.Notes = append(out.Notes, "pg_hba.conf must let it in to database "+s.server.database+" from the daemon's hosts; a logical slot needs no line for \"replication\".")
	}
	return out
}

func (s *survey) rightsSection() Section {
	r, role, t := &s.role, quoted(s.role.name), s.planned
	out := Section{Name: "rights", Title: "Its rights: to connect, and to read the columns " + strings.Join(t.read(), ", ") + "."}
	out.Notes = []string{columnPlace + " is where a row lies: with it several connections share the load at the start."}
	step := func(why, sql string) { out.Steps = append(out.Steps, Step{part: partGrant, Why: why, SQL: sql}) }
	if !r.connect {
		step("may not connect", "GRANT CONNECT ON DATABASE "+quoted(s.server.database)+" TO "+role+";")
	}
	if !r.read.usage {
		step("may not use the schema", grantUsage(t, r.name))
	}
	if !r.read.readable() {
		step("may not read "+strings.Join(r.read.lacking, ", "), grantSelect(t, r.name))
	}
	if len(out.Steps) == 0 {
		out.Notes = append(out.Notes, "It has them.")
	}
	return out
}

func (s *survey) publicationSection(cfg *Config) Section {
	columns := s.identities[0].columns(s.server.version)
	out := Section{Name: "publication", Title: "Publication: which changes leave the server, for this table alone."}
	out.Notes = []string{"All four operations: without one of them the index would miss changes."}
	switch {
	case columns != nil:
		out.Notes = append(out.Notes, "Only the needed columns. Under such a list the server refuses the application UPDATE and DELETE once the replica identity",
			"or the primary key has a column that is not in it: before such a change: "+s.unpublish(cfg))
	case s.server.version < columnLists:
		out.Notes = append(out.Notes, "All columns: a list of columns needs PostgreSQL 15.")
	default:
		out.Notes = append(out.Notes, "All columns: REPLICA IDENTITY FULL forbids a list of columns.")
	}
	if s.table.kind == 'p' {
		out.Notes = append(out.Notes, "Partitions are published under their table's name.")
	}
	out.Steps = additions(cfg.Publication, s.publication, s.planned, columns)
	if partial := s.publication.partial(s.planned); partial != "" {
		out.Steps = append(out.Steps, replacement(cfg.Publication, s.planned, columns, partial)...)
	}
	if len(out.Steps) == 0 {
		out.Notes = append(out.Notes, "It exists, and publishes "+s.published()+".")
	}
	return out
}

// unpublish is the statement that takes the table out of the publication.
func (s *survey) unpublish(cfg *Config) string {
	return replacement(cfg.Publication, s.table, nil, "")[0].SQL
}

// published says which columns the publication has.
func (s *survey) published() string {
	if s.publication.listed() {
		return strings.Join(s.publication.columns, ", ")
	}
	return "all columns"
}

func (s *survey) slotSection(cfg *Config, outdated bool) Section {
	out := Section{Name: "slot", Title: "Slot: where the daemon goes on after a blip. It holds back the log while nobody reads from it."}
	out.Notes = []string{
		"Making it waits for the transactions that run, and what follows for those that committed meanwhile: it sends none of theirs, and they may be visible later. The daemon makes it by itself where it is missing (source.setup: auto).",
		"While the daemon runs it gives the slot up at source.max_retained_wal = " + humanize.IBytes(uint64(max(cfg.MaxRetainedWAL, 0))) + "; otherwise only max_slot_wal_keep_size bounds it.",
	}
	switch {
	case cfg.Failover:
		out.Notes = append(out.Notes, "failover: standbys synchronise it (source.failover), so that it outlives a failover.")
	case s.server.version >= failoverSlots:
		out.Notes = append(out.Notes, "It goes with the primary. To have standbys synchronise it: source.failover: true, then plan anew.")
	}
	if s.slot.verify(cfg.Slot, s.server.database) != nil {
		return out
	}
	out.Steps = slotSteps(cfg, s.slot, outdated)
	for i, step := range out.Steps {
		if step.part == partSlot && s.server.walLevel != "logical" {
			out.Steps[i].Obstacle = "wal_level is " + s.server.walLevel + ": after the restart (see the settings below)"
		}
	}
	if len(out.Steps) == 0 {
		out.Notes = append(out.Notes, "It exists, and can serve.")
	}
	return out
}
