package cdc

import (
	"fmt"
	"strings"
	"testing"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// Under each replica identity every kind of change reaches the index, and after each the
// index answers as the table does.
func TestEveryChangeUnderEachIdentity(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, server *devstack.Postgres) {
		for _, identity := range []string{"DEFAULT", "INDEX", "FULL"} {
			t.Run(identity, func(t *testing.T) {
				t.Parallel()
				db := databaseOn(t, server)
				contract(t, db, identity)
				db.Exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i%10, 'c'||i FROM generate_series(1,100) i`)
				g := start(t, db)
				g.agree(t)
				steps := []string{
					`INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1','new'), ('r20','c1')`,
					`UPDATE subscribers_restaurants SET client_id = 'changed' WHERE restaurant_id = 'r1' AND client_id = 'new'`,
					`UPDATE subscribers_restaurants SET restaurant_id = 'r21' WHERE client_id = 'changed'`,
					`UPDATE subscribers_restaurants SET restaurant_id = 'r22', client_id = 'both' WHERE client_id = 'changed'`,
					`UPDATE subscribers_restaurants SET id = id + 100000 WHERE restaurant_id = 'r3'`,
					`UPDATE subscribers_restaurants SET id = id + 200000, client_id = client_id || 'x' WHERE restaurant_id = 'r3'`,
					`UPDATE subscribers_restaurants SET id = id WHERE restaurant_id = 'r4'`,
					`DELETE FROM subscribers_restaurants WHERE restaurant_id = 'r5'`,
					`INSERT INTO subscribers_restaurants (id, restaurant_id, client_id) VALUES (5, 'r5', 'another, of an id that is free')`,
					`BEGIN; DELETE FROM subscribers_restaurants WHERE id = 5; INSERT INTO subscribers_restaurants (id, restaurant_id, client_id) VALUES (5, 'r1', 'again'); UPDATE subscribers_restaurants SET id = 15 WHERE id = 5; INSERT INTO subscribers_restaurants (id, restaurant_id, client_id) VALUES (5, 'r5', 'and again'); COMMIT`,
					`BEGIN; UPDATE subscribers_restaurants SET id = 25 WHERE id = 5; UPDATE subscribers_restaurants SET id = 5 WHERE id = 15; UPDATE subscribers_restaurants SET id = 15 WHERE id = 25; COMMIT`,
					`BEGIN; INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r30','a'); SAVEPOINT s; DELETE FROM subscribers_restaurants; ROLLBACK TO s; INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r30','b'); COMMIT`,
					`BEGIN; SAVEPOINT a; UPDATE subscribers_restaurants SET client_id = client_id || 'a' WHERE restaurant_id = 'r8'; SAVEPOINT b; DELETE FROM subscribers_restaurants WHERE restaurant_id = 'r8'; ROLLBACK TO b; SAVEPOINT c; INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r8','kept'); RELEASE c; SAVEPOINT d; TRUNCATE subscribers_restaurants; ROLLBACK TO d; RELEASE a; COMMIT`,
					`BEGIN; DELETE FROM subscribers_restaurants; ROLLBACK`,
					`COPY subscribers_restaurants (restaurant_id, client_id) FROM PROGRAM 'printf "r31,a\nr31,b\n"' CSV`,
					`BEGIN; DELETE FROM subscribers_restaurants WHERE restaurant_id = 'r31' AND client_id = 'a'; PREPARE TRANSACTION '` + db.Name + `'`,
					`COMMIT PREPARED '` + db.Name + `'`,
					`BEGIN; TRUNCATE subscribers_restaurants RESTART IDENTITY; INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1','after'); COMMIT`,
					`CREATE TABLE other (id int REFERENCES subscribers_restaurants); ALTER PUBLICATION tiffin ADD TABLE other; TRUNCATE other, subscribers_restaurants CASCADE`,
					`CREATE TABLE restaurants (id varchar PRIMARY KEY); INSERT INTO restaurants VALUES ('r1'); INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'c'); ALTER TABLE subscribers_restaurants ADD CONSTRAINT known FOREIGN KEY (restaurant_id) REFERENCES restaurants`,
					`TRUNCATE restaurants CASCADE`, // of which the publication knows nothing
					`ALTER TABLE subscribers_restaurants DROP CONSTRAINT known`,
					`INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i%10, 'c'||i FROM generate_series(1,100) i`,
					`ALTER TABLE subscribers_restaurants ADD COLUMN extra text DEFAULT 'x'; UPDATE subscribers_restaurants SET extra = 'y', client_id = client_id || '!' WHERE restaurant_id = 'r6'`,
					`ALTER TABLE subscribers_restaurants RENAME COLUMN extra TO more; DELETE FROM subscribers_restaurants WHERE restaurant_id = 'r6'`,
					`ALTER TABLE subscribers_restaurants DROP COLUMN more; DELETE FROM subscribers_restaurants WHERE restaurant_id = 'r7'`,
				}
				for _, sql := range steps {
					db.Exec(t, sql)
					g.agree(t)
				}
				g.unrebuilt(t)
			})
		}
	})
}

// Columns that nobody here needs come and go before, between and behind the needed ones, which so change their
// places, also in the middle of a transaction.
func TestNeededColumnsChangePlace(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, server *devstack.Postgres) {
		for _, identity := range []string{"DEFAULT", "INDEX", "FULL"} {
			t.Run(identity, func(t *testing.T) {
				t.Parallel()
				db := databaseOn(t, server)
				db.Exec(t, `CREATE TABLE subscribers_restaurants (a text, id serial PRIMARY KEY, b text, client_id varchar NOT NULL, c text, restaurant_id varchar NOT NULL)`)
				if identity == "INDEX" {
					db.Exec(t, `CREATE UNIQUE INDEX pair ON subscribers_restaurants (client_id, restaurant_id)`)
					identity = "USING INDEX pair"
				}
				db.Exec(t, `ALTER TABLE subscribers_restaurants REPLICA IDENTITY `+identity,
					`INSERT INTO subscribers_restaurants (a, b, c, restaurant_id, client_id) SELECT 'a', 'b', i, 'r'||i%10, 'c'||i FROM generate_series(1,100) i`)
				g := start(t, db)
				g.agree(t)
				for i, alter := range []string{
					`DROP COLUMN a`, `DROP COLUMN b`, `ADD COLUMN d text DEFAULT 'd'`, `ALTER COLUMN c TYPE int USING c::int`, // which rewrites the rows
					`RENAME COLUMN d TO b`, `DROP COLUMN c`,
				} {
					change := func(n int) string {
						return fmt.Sprintf(`UPDATE subscribers_restaurants SET client_id = client_id || '-%[1]d' WHERE restaurant_id = 'r%[1]d'; DELETE FROM subscribers_restaurants WHERE client_id = 'c2%[1]d';
							INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r%[1]d', 'new %[2]d')`, i, n)
					}
					db.Exec(t, `BEGIN; `+change(1)+`; ALTER TABLE subscribers_restaurants `+alter+`; `+change(2)+`; COMMIT`)
					g.agree(t)
				}
				g.unrebuilt(t)
			})
		}
	})
}

// A client with two rows for one restaurant stays until the last row is gone.
func TestDuplicatesCountOnce(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, server *devstack.Postgres) {
		for _, identity := range []string{"DEFAULT", "FULL", "USING INDEX wide"} {
			t.Run(identity, func(t *testing.T) {
				t.Parallel()
				db := databaseOn(t, server)
				contract(t, db, "DEFAULT")
				db.Exec(t, `CREATE UNIQUE INDEX wide ON subscribers_restaurants (restaurant_id, client_id, id)`,
					`ALTER TABLE subscribers_restaurants REPLICA IDENTITY `+identity,
					`INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1','c'), ('r1','c')`)
				g := start(t, db)
				g.agree(t)
				for range 2 {
					g.exec(t, `UPDATE subscribers_restaurants SET id = id + 10`)
					g.agree(t)
					g.exec(t, `DELETE FROM subscribers_restaurants WHERE id = (SELECT min(id) FROM subscribers_restaurants)`)
					g.agree(t)
				}
				g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1','c'), ('r1','c')`)
				g.exec(t, `DELETE FROM subscribers_restaurants`)
				g.agree(t)
				g.unrebuilt(t)
				if got := g.clients(t, "r1"); len(got) != 0 {
					t.Errorf("clients of r1: %v, want none", got)
				}
			})
		}
	})
}

// An unchanged TOAST value is not sent; the index keeps what it knows.
func TestUnchangedTOASTKeepsTheValue(t *testing.T) {
	t.Parallel()
	for identity, times := range map[string]int{"DEFAULT": 1000, "FULL": 1000, "INDEX": 200} { // an index holds no more
		t.Run(identity, func(t *testing.T) {
			t.Parallel()
			db := servers.Database(t)
			contract(t, db, identity)
			db.Exec(t, `ALTER TABLE subscribers_restaurants ALTER COLUMN client_id SET STORAGE EXTERNAL, ALTER COLUMN restaurant_id TYPE char(10), ADD COLUMN other text`)
			if identity != "INDEX" {
				db.Exec(t, `ALTER TABLE subscribers_restaurants ALTER COLUMN restaurant_id DROP NOT NULL`) // which changes nothing
			}
			g := start(t, db)
			long := strings.Repeat("long client ", times)
			g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', $1)`, long)
			g.agree(t)
			g.exec(t, `UPDATE subscribers_restaurants SET other = 'x'`)
			g.agree(t)
			g.exec(t, `UPDATE subscribers_restaurants SET restaurant_id = 'r2'`)
			g.agree(t)
			g.exec(t, `UPDATE subscribers_restaurants SET id = 77, restaurant_id = 'r3'`)
			g.agree(t)
			g.exec(t, `DELETE FROM subscribers_restaurants`)
			g.agree(t)
			g.unrebuilt(t)
		})
	}
}

// A row that a NULL keeps from being a subscription becomes one by an UPDATE that does not carry its other
// column: what that holds was never noted, and the table is loaded again. Nothing is guessed.
func TestUnchangedTOASTOfARowSetAsideLoadsAgain(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	db.Exec(t, `ALTER TABLE subscribers_restaurants ALTER COLUMN client_id SET STORAGE EXTERNAL, ALTER COLUMN restaurant_id DROP NOT NULL`)
	g := start(t, db)
	g.exec(t, `INSERT INTO subscribers_restaurants (id, restaurant_id, client_id) VALUES (1, 'r1', $1)`, strings.Repeat("long client ", 1000))
	g.agree(t)
	g.exec(t, `UPDATE subscribers_restaurants SET restaurant_id = NULL`)
	g.agree(t)
	g.unrebuilt(t)
	g.exec(t, `UPDATE subscribers_restaurants SET restaurant_id = 'r2'`)
	g.agree(t)
	if n := value(t, g.r.cfg.Metrics.rebuilds.WithLabelValues("inconsistent")); n != 1 {
		t.Errorf("%v rebuilds: want one", n)
	}
}

// Texts and types of any kind come through as Postgres prints them, from memory as well as read through.
func TestTypesAndTexts(t *testing.T) {
	t.Parallel()
	for typ, value := range map[string]string{
		"uuid": "123e4567-e89b-12d3-a456-426614174000", "char(40)": "r1 ", "padded": "r1", "bigint": "-5", "text": "Кафе «№1» 🍕 \\ ' \"",
	} {
		for name, budget := range map[string]int64{"from memory": 1 << 20, "read through": 1} {
			t.Run(typ+" "+name, func(t *testing.T) {
				t.Parallel()
				followType(t, typ, value, budget)
			})
		}
	}
}

func followType(t *testing.T, typ, value string, budget int64) {
	db := servers.Database(t)
	db.Exec(t, `CREATE DOMAIN code AS char(10); CREATE DOMAIN padded AS code`,
		fmt.Sprintf(`CREATE TABLE subscribers_restaurants (n text, restaurant_id %s, id bigint PRIMARY KEY, client_id varchar)`, typ))
	insert := fmt.Sprintf(`INSERT INTO subscribers_restaurants VALUES (NULL, $1::text::%s, $2, $3)`, typ)
	g := build(t, db, config(t, db), budget)
	g.exec(t, insert, value, int64(1)<<40, "")
	g.exec(t, `INSERT INTO subscribers_restaurants VALUES (NULL, NULL, 2, 'no restaurant'), (NULL, NULL, 3, NULL)`)
	g.run(t)
	g.agree(t)
	g.exec(t, insert, value, -7, "ü")
	g.exec(t, `UPDATE subscribers_restaurants SET client_id = NULL WHERE id = -7`)
	g.agree(t)
	g.exec(t, `UPDATE subscribers_restaurants SET client_id = 'again', restaurant_id = (SELECT restaurant_id FROM subscribers_restaurants WHERE id = -7) WHERE id IN (2, -7)`)
	g.agree(t)
	g.exec(t, `DELETE FROM subscribers_restaurants WHERE id IN (-7, 3)`)
	g.agree(t)
	g.unrebuilt(t)
}

// Texts may be of any length, and ids of any integer type, loaded as well as streamed.
func TestLengthsAndIDs(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"smallint", "int", "bigint"} {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			db := servers.Database(t)
			db.Exec(t, `CREATE TABLE subscribers_restaurants (id `+id+` PRIMARY KEY, client_id text NOT NULL, restaurant_id text NOT NULL)`)
			g := build(t, db, config(t, db), 64<<10)
			insert := func(from int) {
				for i, n := range []int{0, 1, 2, 127, 128, 255, 256, 4095, 4096, 65535, 65536, 1 << 20, 5 << 20} {
					g.exec(t, `INSERT INTO subscribers_restaurants VALUES ($1, 'c' || repeat('x', $2), 'r1'), (-$1, 'c', 'r' || repeat('y', $2))`, from+i, n)
				}
			}
			insert(1)
			g.run(t)
			g.agree(t)
			insert(1001)
			g.agree(t)
			g.exec(t, `UPDATE subscribers_restaurants SET client_id = client_id || 'z' WHERE id > 0`)
			g.agree(t)
			g.exec(t, `DELETE FROM subscribers_restaurants WHERE id BETWEEN -10 AND 10 OR id > 1005`)
			g.agree(t)
			g.unrebuilt(t)
			g.exec(t, `ALTER TABLE subscribers_restaurants ALTER id TYPE bigint`) // they had run out
			g.exec(t, `INSERT INTO subscribers_restaurants VALUES ($1, 'large', 'r1'), (-$1, 'large', 'r2')`, int64(1)<<40)
			g.agree(t)
			g.exec(t, `DELETE FROM subscribers_restaurants WHERE id > 100`)
			g.agree(t)
		})
	}
}

// A partitioned table is followed under its own name, partitions added or emptied included.
func TestPartitionedTable(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, server *devstack.Postgres) {
		for identity, by := range map[string]string{"DEFAULT": "id", "INDEX": "restaurant_id", "FULL": "restaurant_id"} {
			t.Run(identity, func(t *testing.T) {
				t.Parallel()
				followPartitions(t, databaseOn(t, server), identity, by)
			})
		}
	})
}

// followPartitions follows a table partitioned by a column, whose rows go from partition to partition.
func followPartitions(t *testing.T, db *devstacktest.Database, identity, by string) {
	db.Exec(t, `CREATE TABLE subscribers_restaurants (id int NOT NULL, client_id text NOT NULL, restaurant_id text NOT NULL) PARTITION BY HASH (`+by+`)`,
		`CREATE TABLE p0 PARTITION OF subscribers_restaurants FOR VALUES WITH (MODULUS 2, REMAINDER 0)`,
		`CREATE TABLE p1 PARTITION OF subscribers_restaurants FOR VALUES WITH (MODULUS 2, REMAINDER 1)`)
	if by == "id" {
		db.Exec(t, `ALTER TABLE subscribers_restaurants ADD PRIMARY KEY (id)`)
	}
	for _, relation := range []string{"p0", "p1", "subscribers_restaurants"} {
		if identity == "INDEX" {
			db.Exec(t, `CREATE UNIQUE INDEX `+relation+`_pair ON `+relation+` (restaurant_id, client_id)`,
				`ALTER TABLE `+relation+` REPLICA IDENTITY USING INDEX `+relation+`_pair`)
		} else {
			db.Exec(t, `ALTER TABLE `+relation+` REPLICA IDENTITY `+identity)
		}
	}
	db.Exec(t, `INSERT INTO subscribers_restaurants SELECT i, 'c'||i, 'r'||i%20 FROM generate_series(1,200) i`)
	role := db.Slot // may read the table, not its partitions
	db.Exec(t, `CREATE ROLE `+role+` LOGIN REPLICATION`, `GRANT SELECT ON subscribers_restaurants TO `+role,
		`CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants WITH (publish_via_partition_root = true)`)
	t.Cleanup(func() { dropRole(t, db, role) })
	g := start(t, db, func(c *Config) { c.DSN = db.Server.DSNFor(role, "", db.Name) })
	g.agree(t)
	for _, sql := range []string{
		`UPDATE subscribers_restaurants SET restaurant_id = 'r' || id WHERE id < 50`,
		`UPDATE subscribers_restaurants SET id = id + 1000 WHERE id < 50`,
		`UPDATE subscribers_restaurants SET id = id + 1000, client_id = client_id || '!', restaurant_id = restaurant_id || '!' WHERE id < 100`,
		`UPDATE subscribers_restaurants SET client_id = client_id || '?' WHERE id > 1000`,
		`DELETE FROM subscribers_restaurants WHERE id % 3 = 0`,
	} {
		g.exec(t, sql)
		g.agree(t)
	}
	g.unrebuilt(t)
	g.exec(t, `TRUNCATE p0`) // the log does not say this: a fence or the warden finds it
	eventually(t, "a rebuild", func() bool { return value(t, g.r.cfg.Metrics.rebuilds.WithLabelValues("partitions")) == 1 })
	g.agree(t)
	g.exec(t, `TRUNCATE subscribers_restaurants`)
	g.agree(t)
}
