package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// parentVariable makes this test binary a program that starts servers and waits to be killed.
const parentVariable = "DEVSTACK_TEST_PARENT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(parentVariable); dir != "" {
		fmt.Fprintln(os.Stderr, waitToBeKilled(dir)) // it returns only if something went wrong
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// waitToBeKilled starts one server of each kind, prints their pids and does nothing more.
func waitToBeKilled(dir string) error {
	ctx := context.Background()
	postgres, err := StartPostgres(ctx, PostgresOptions{Dir: dir})
	if err != nil {
		return err
	}
	pids := append(childrenOf(postgres.PID()), postgres.PID())
	kafka, err := StartKafka(ctx, KafkaOptions{Dir: dir})
	switch {
	case err == nil:
		pids = append(pids, kafka.PIDs()...)
	case !errors.Is(err, ErrNoJava) && !errors.Is(err, ErrNoMaven):
		return err
	}
	_, _ = fmt.Fprintln(os.Stdout, pids)
	_, _ = os.Stdin.Read(make([]byte, 1)) // the test keeps it open
	return errors.New("not killed")
}
