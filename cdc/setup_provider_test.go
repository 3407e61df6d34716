package cdc

import (
	"maps"
	"strings"
	"testing"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

func TestProviderIsRecognised(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		roles, settings []string
		want            provider
	}{
		{nil, nil, selfManaged},
		{[]string{"rds_superuser", "rds_replication"}, []string{settingRDS}, amazonRDS},
		{[]string{"rds_superuser"}, nil, amazonRDS},
		{nil, []string{settingRDS}, amazonRDS},
		{[]string{"cloudsqlsuperuser"}, nil, cloudSQL},
		{nil, []string{settingCloudSQL}, cloudSQL},
		{[]string{"azure_pg_admin"}, nil, azure},
	} {
		if got := recognise(c.roles, c.settings); got != c.want {
			t.Errorf("%v, %v: %q, want %q", c.roles, c.settings, got, c.want)
		}
	}
}

// On a provider's server the plan goes the provider's way, though wal_level says no; and its
// customer, who is no superuser, does with apply what a customer may.
func TestPlanForAProvidersServer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		roles     string
		conf      map[string]string
		says, not []string
	}{
		"RDS": {
			roles: `CREATE ROLE rds_superuser; CREATE ROLE rds_replication; GRANT rds_superuser, rds_replication TO customer WITH ADMIN OPTION`,
			conf:  map[string]string{settingRDS: "off"},
			says:  []string{"of Amazon RDS", `CREATE ROLE "reader" LOGIN;`, `GRANT rds_replication TO "reader";`, "parameter group", "rds.logical_replication = 1", "reboot"},
			not:   []string{"ALTER SYSTEM", `LOGIN REPLICATION`, "ALTER ROLE", "pg_reload_conf"},
		},
		"Cloud SQL": {
			roles: `CREATE ROLE cloudsqlsuperuser; GRANT cloudsqlsuperuser TO customer`,
			conf:  map[string]string{settingCloudSQL: "off"},
			says:  []string{"of Google Cloud SQL", `CREATE ROLE "reader" LOGIN;`, `ALTER ROLE "reader" REPLICATION;`, "gcloud sql instances patch INSTANCE --database-flags=cloudsql.logical_decoding=on"},
			not:   []string{"ALTER SYSTEM", "rds_replication", "pg_reload_conf"},
		},
		"Azure": {
			roles: `CREATE ROLE azure_pg_admin; GRANT azure_pg_admin TO customer`,
			says:  []string{"of Azure", `CREATE ROLE "reader" LOGIN;`, `ALTER ROLE "reader" REPLICATION;`, "az postgres flexible-server parameter set", "--name wal_level --value logical", "flexible-server restart"},
			not:   []string{"ALTER SYSTEM", "rds_replication", "pg_reload_conf"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf := map[string]string{"wal_level": "replica"}
			maps.Copy(conf, c.conf)
			db := devstacktest.NewDatabase(t, own(t, devstack.PostgresOptions{Settings: conf}), "app")
			db.Exec(t, `CREATE ROLE customer LOGIN CREATEROLE`, c.roles, `ALTER DATABASE app OWNER TO customer`, `ALTER SCHEMA public OWNER TO customer`)
			contract(t, db, "DEFAULT")
			db.Exec(t, `ALTER TABLE subscribers_restaurants OWNER TO customer`)
			cfg := config(t, db)
			cfg.DSN, cfg.MaxRetainedWAL = db.Server.DSNFor("customer", "", db.Name), 8<<30
			script, err := Plan(t.Context(), cfg, "reader")
			if err != nil {
				t.Fatal(err)
			}
			text := script.String()
			for _, want := range append(c.says, "NOT NOW: wal_level is replica", "max_slot_wal_keep_size", "16384MB") {
				if !strings.Contains(text, want) {
					t.Errorf("the plan does not say %q:\n%s", want, text)
				}
			}
			for _, no := range c.not {
				if strings.Contains(text, no) {
					t.Errorf("the plan says %q:\n%s", no, text)
				}
			}
			tally, report := applied(t, cfg, "reader", declining)
			if len(tally.Needed) != 1 || !strings.Contains(report, "done CREATE PUBLICATION") || !strings.Contains(report, `done GRANT SELECT`) || strings.Contains(report, "done SELECT pg_create") {
				t.Errorf("%+v\n%s", tally, report)
			}
			if name == "RDS" && !strings.Contains(report, "done GRANT rds_replication") {
				t.Errorf("no right to replicate:\n%s", report)
			}
		})
	}
}
