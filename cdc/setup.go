package cdc

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Plan returns what the source database lacks for role to follow the table. cfg.DSN is the
// owner's or a DBA's, and only reads here.
func Plan(ctx context.Context, cfg Config, role string) (*Script, error) {
	conn, err := cfg.setUpConn(ctx)
	if err != nil {
		return nil, err
	}
	defer hangUp(ctx, conn.PgConn())
	s, err := makeSurvey(ctx, &cfg, conn, role)
	if err != nil {
		return nil, err
	}
	return s.script(&cfg), nil
}

// PlanOffline is Plan for a server that is not asked: it assumes that nothing is there but the
// usual table, on a server that supports column lists.
func PlanOffline(cfg Config, role string) (*Script, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("cdc config: %w", err)
	}
	conf, err := cfg.conn()
	if err != nil {
		return nil, err
	}
	s, err := offline(&cfg, role, or(conf.Database, conf.User)) // as the server does
	if err != nil {
		return nil, err
	}
	return s.script(&cfg), nil
}

// setUpConn connects after checking the settings.
func (c *Config) setUpConn(ctx context.Context) (*pgx.Conn, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("cdc config: %w", err)
	}
	return c.connect(ctx)
}
