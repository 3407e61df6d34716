package main

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// The image has nothing but what is copied into it: no loader, no C library, no root. Its programs are
// built here by the Dockerfile's own command.
func TestImageHoldsStaticProgramsOfNobody(t *testing.T) {
	t.Parallel()
	image := strings.ReplaceAll(textOf(t, "deploy/Dockerfile"), "\\\n", "")
	stages := regexp.MustCompile(`(?m)^FROM (\S+)`).FindAllStringSubmatchIndex(image, -1)
	last := stages[len(stages)-1]
	if base := image[last[2]:last[3]]; base != "scratch" {
		t.Errorf("the image is made from %s", base)
	}
	user, want := regexp.MustCompile(`(?m)^USER (\S+)$`).FindStringSubmatch(image[last[0]:]), readManifest(t).user
	if user == nil || want == 0 || user[1] != fmt.Sprintf("%[1]d:%[1]d", want) { // a number: Kubernetes cannot tell whether a name is root's
		t.Errorf("the image's user is %q, the pod's %d", user, want)
	}
	build := regexp.MustCompile(`(?m)^RUN ([^&\n]*go build [^&]+)&&`).FindStringSubmatch(image[:last[0]])
	if build == nil || strings.Count(build[1], " /out/ ") != 1 {
		t.Fatalf("the Dockerfile builds by %q", build)
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(build[1], " /out/ ", ` "$0/" `, 1), dir)
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "GOOS=linux", "STAMP=v9 abc 2026-01-02T03:04:05Z")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build[1], err, out)
	}
	for _, program := range []string{"tiffin", "slotsetup"} {
		wantStatic(t, dir+"/"+program)
	}
	if runtime.GOOS != "linux" {
		return
	}
	out, err := exec.CommandContext(t.Context(), dir+"/tiffin", "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "tiffin v9 (commit abc ") {
		t.Errorf("the stamp is lost: %v %s", err, out)
	}
}

func wantStatic(t *testing.T, path string) {
	t.Helper()
	program, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = program.Close() }()
	for _, segment := range program.Progs {
		if segment.Type == elf.PT_INTERP {
			t.Errorf("%s asks for a loader", path)
		}
	}
	needed, err := program.DynString(elf.DT_NEEDED)
	if err != nil || len(needed) > 0 {
		t.Errorf("%s needs %q: %v", path, needed, err)
	}
}
