package cdc

import (
	"os"
	"testing"

	"example.com/tiffin/internal/devstack/devstacktest"
)

var servers devstacktest.Servers

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }
