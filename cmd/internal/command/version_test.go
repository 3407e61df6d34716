package command

import (
	"runtime/debug"
	"testing"
)

func TestBuildIsTheLinkersStampElseTheGoCommands(t *testing.T) {
	t.Parallel()
	recorded := &debug.BuildInfo{
		Main:     debug.Module{Version: "v1.2.3"},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.time", Value: "2026-01-02T03:04:05Z"}},
	}
	for _, c := range []struct {
		stamp string
		info  *debug.BuildInfo
		want  Build
	}{
		{"v2 def 2026-05-06T07:08:09Z", recorded, Build{"v2", "def", "2026-05-06T07:08:09Z"}},
		{"", recorded, Build{"v1.2.3", "abc", "2026-01-02T03:04:05Z"}},
		{"half a stamp of four", recorded, Build{"v1.2.3", "abc", "2026-01-02T03:04:05Z"}},
		{"", &debug.BuildInfo{}, Build{"unknown", "unknown", "unknown"}},
		{"", nil, Build{"unknown", "unknown", "unknown"}},
	} {
		if got := buildFrom(c.stamp, c.info); got != c.want {
			t.Errorf("%q: %+v, want %+v", c.stamp, got, c.want)
		}
	}
}
