package cdc

import (
	"fmt"
	"strconv"

	"github.com/dustin/go-humanize"
)

// settingsSection is apart from the rest: it concerns the whole server, and most of it needs a
// restart.
func (s *survey) settingsSection(cfg *Config) Section {
	out := Section{Name: "settings", Title: "Settings of the whole server: NOT part of the script. To be decided on, and run apart, by who runs the server."}
	if !s.asked {
		out.Notes = append(out.Notes, "The server was not asked: compare with SHOW first.")
	}
	later := func(needed bool, why, name, value, then string) {
		out.Later = append(out.Later, Statement{Needed: needed && s.asked, Why: why, Text: s.provider.setting(name, value), Then: then})
	}
	restart := s.provider.restart()
	if s.server.walLevel != "logical" || !s.asked {
		later(true, "wal_level is "+s.told(s.server.walLevel, "replica")+"; only with logical are the rows' changes in the log", "wal_level", "logical", restart)
	} else {
		out.Notes = append(out.Notes, "wal_level is logical.")
	}
	s.settingsForRoom(&out, later)
	if chosenAsStandby(s.server.standbys, cfg.application()) {
		out.Later = append(out.Later, Statement{
			Needed: true, Why: fmt.Sprintf("synchronous_standby_names is %q, so that every commit would wait for the daemon", s.server.standbys),
			Text: "name the standbys in it, without * and without " + cfg.application(),
		})
	}
	limit := max(2*cfg.MaxRetainedWAL, 1<<30)
	value := strconv.FormatInt(limit>>20, 10) + "MB"
	switch {
	case s.keep < 0:
		later(false, "max_slot_wal_keep_size is "+s.told("unlimited", "unlimited")+": while no daemon runs, nothing keeps the slot from filling the disk. Twice source.max_retained_wal",
			"max_slot_wal_keep_size", value, s.provider.reload())
	case s.keep < cfg.MaxRetainedWAL:
		later(false, "max_slot_wal_keep_size is "+humanize.IBytes(uint64(s.keep))+", below source.max_retained_wal: the server gives the slot up before the daemon does. Twice of that",
			"max_slot_wal_keep_size", value, s.provider.reload())
	default:
		out.Notes = append(out.Notes, "max_slot_wal_keep_size is "+humanize.IBytes(uint64(s.keep))+".")
	}
	return out
}

// told is a value, or the server's default where nobody asked for it.
func (s *survey) told(value, usual string) string {
	if s.asked {
		return value
	}
	return usual + " by default"
}

// settingsForRoom sees that there is room for one more slot and one more walsender.
func (s *survey) settingsForRoom(out *Section, later func(needed bool, why, name, value, then string)) {
	for _, l := range []struct {
		name, what string
		room       room
		taken      bool // ours is among the used
	}{
		{"max_replication_slots", "slot", s.slots, s.slot.exists},
		{"max_wal_senders", "walsender", s.senders, s.slot.activePID != 0},
	} {
		switch {
		case !s.asked:
			later(false, l.name+" is 10 by default; the daemon takes one more "+l.what, l.name, "20", s.provider.restart())
		case !l.taken && l.room.used >= l.room.limit:
			why := fmt.Sprintf("%s is %d, all in use; the daemon takes one more %s", l.name, l.room.limit, l.what)
			later(true, why, l.name, strconv.Itoa(l.room.limit+5), s.provider.restart())
		default:
			out.Notes = append(out.Notes, fmt.Sprintf("%s is %d, %d in use.", l.name, l.room.limit, l.room.used))
		}
	}
}
