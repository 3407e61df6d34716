package cdc

import "slices"

// provider is who runs the server, where that changes how it is prepared.
type provider string

const (
	selfManaged provider = ""
	amazonRDS   provider = "Amazon RDS or Aurora"
	cloudSQL    provider = "Google Cloud SQL"
	azure       provider = "Azure Database for PostgreSQL"
)

// The roles and settings by which a provider is known: each gives its customers a role of its own in
// the place of a superuser.
const (
	roleRDS         = "rds_superuser"
	roleReplication = "rds_replication" // what RDS has in the place of the attribute REPLICATION
	roleCloudSQL    = "cloudsqlsuperuser"
	roleAzure       = "azure_pg_admin"

	settingRDS      = "rds.logical_replication"
	settingCloudSQL = "cloudsql.logical_decoding"
)

// recognise tells the provider by the server's roles and by the settings that it knows.
func recognise(roles, settings []string) provider {
	has := slices.Contains[[]string, string]
	switch {
	case has(roles, roleRDS), has(roles, roleReplication), has(settings, settingRDS):
		return amazonRDS
	case has(roles, roleCloudSQL), has(settings, settingCloudSQL):
		return cloudSQL
	case has(roles, roleAzure):
		return azure
	}
	return selfManaged
}

// setting says how the provider's customer changes a setting, and what makes it take effect.
func (p provider) setting(name, value string) string {
	switch p {
	case amazonRDS:
		if name == "wal_level" {
			name, value = settingRDS, "1"
		}
		return "in the DB parameter group (Aurora: DB cluster parameter group): " + name + " = " + value
	case cloudSQL:
		if name == "wal_level" {
			name, value = settingCloudSQL, "on"
		}
		return "gcloud sql instances patch INSTANCE --database-flags=" + name + "=" + value + " (name all flags that are set: it replaces them)"
	case azure:
		return "az postgres flexible-server parameter set --resource-group GROUP --server-name SERVER --name " + name + " --value " + value
	default:
		return "ALTER SYSTEM SET " + name + " = " + literal(value) + ";"
	}
}

// restart is how a setting that only a start reads takes effect.
func (p provider) restart() string {
	switch p {
	case amazonRDS:
		return "reboot the DB instance"
	case cloudSQL:
		return "wait: the instance restarts by itself"
	case azure:
		return "az postgres flexible-server restart --resource-group GROUP --name SERVER"
	default:
		return "restart the server"
	}
}

// reload is how a setting that can change at any time takes effect.
func (p provider) reload() string {
	if p == selfManaged {
		return "SELECT pg_reload_conf();"
	}
	return ""
}

// admin is whom its customers have in the place of a superuser.
func (p provider) admin() string {
	switch p {
	case amazonRDS:
		return "a member of " + roleRDS
	case cloudSQL:
		return "a member of " + roleCloudSQL
	case azure:
		return "the server's administrator (" + roleAzure + ")"
	default:
		return "a superuser"
	}
}
