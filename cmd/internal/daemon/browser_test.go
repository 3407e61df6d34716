package daemon

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
	"time"
)

// browser is a headless Chromium, driven by chromedriver as W3C WebDriver has it.
type browser struct {
	t       *testing.T
	client  *http.Client
	session string // its URL
}

// openBrowser starts one for the time of the test. Where there is none the test is skipped and says
// so; with CI=true that is a failure.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	driver, driverErr := exec.LookPath("chromedriver")
	if err != nil || driverErr != nil {
		const lacks = "needs chromium and chromedriver (Debian: chromium, chromium-driver)"
		if os.Getenv("CI") == "true" {
			t.Fatal(lacks)
		}
		t.Skip(lacks)
	}
	transport := &http.Transport{}
	b := &browser{t: t, client: &http.Client{Transport: transport, Timeout: patience}}
	t.Cleanup(transport.CloseIdleConnections)
	base := startDriver(t, driver)
	var session struct{ SessionID string }
	b.call(http.MethodPost, base+"/session", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"goog:loggingPrefs": map[string]string{"browser": "ALL"},
		"goog:chromeOptions": map[string]any{"binary": chromium, "args": []string{
			"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
			"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--lang=en-US", "--user-data-dir=" + t.TempDir(),
		}},
	}}}, &session)
	b.session = base + "/session/" + session.SessionID
	t.Cleanup(func() { b.call(http.MethodDelete, b.session, nil, nil) })
	return b
}

// startDriver starts chromedriver on a free port and returns its address. What it starts is in its
// process group and goes with it.
func startDriver(t *testing.T, path string) string {
	t.Helper()
	cmd := exec.Command(path, "--port=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	drained := make(chan struct{})
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the session was closed: nothing is lost
		<-drained
		_ = cmd.Wait() // killed
	})
	lines := bufio.NewScanner(out)
	port := regexp.MustCompile(`started successfully on port (\d+)`)
	found := ""
	for found == "" && lines.Scan() {
		if m := port.FindStringSubmatch(lines.Text()); m != nil {
			found = m[1]
		}
	}
	go func() { defer close(drained); _, _ = io.Copy(io.Discard, out) }()
	if found == "" {
		t.Fatal("chromedriver ended before it was ready")
	}
	return "http://127.0.0.1:" + found
}

// call makes one WebDriver call and reads its value into answer, unless that is nil.
func (b *browser) call(method, url string, body, answer any) {
	b.t.Helper()
	var text []byte
	if method == http.MethodPost {
		var err error
		if text, err = json.Marshal(body); err != nil {
			b.t.Fatal(err)
		}
	}
	request, err := http.NewRequest(method, url, bytes.NewReader(text))
	if err != nil {
		b.t.Fatal(err)
	}
	response, err := b.client.Do(request)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var value struct{ Value json.RawMessage }
	if err := json.NewDecoder(response.Body).Decode(&value); err != nil {
		b.t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		b.t.Fatalf("%s %s: %s", method, url, value.Value)
	}
	if answer != nil {
		if err := json.Unmarshal(value.Value, answer); err != nil {
			b.t.Fatalf("%s: %v", value.Value, err)
		}
	}
}

func (b *browser) open(url string) {
	b.t.Helper()
	b.call(http.MethodPost, b.session+"/url", map[string]string{"url": url}, nil)
}

// run evaluates the body of a function in the page.
func (b *browser) run(script string, answer any, args ...any) {
	b.t.Helper()
	if args == nil {
		args = []any{}
	}
	b.call(http.MethodPost, b.session+"/execute/sync", map[string]any{"script": script, "args": args}, answer)
}

// text is what the reader sees of an element.
func (b *browser) text(selector string) (text string) {
	b.t.Helper()
	b.run("return document.querySelector(arguments[0])?.textContent ?? ''", &text, selector)
	return text
}

// value is what stands in a field, by its id.
func (b *browser) value(id string) (text string) {
	b.t.Helper()
	b.run("return document.getElementById(arguments[0]).value", &text, id)
	return text
}

// until waits until an expression holds in the page.
func (b *browser) until(expression string, args ...any) {
	b.t.Helper()
	for end := time.Now().Add(patience / 3); ; {
		var holds bool
		b.run("return !!("+expression+")", &holds, args...)
		if holds {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("it never came to %s %q; the page: %s", expression, args, b.text("html"))
		}
		// WebDriver tells no event: the page is asked again.
		var ignored any
		b.call(http.MethodPost, b.session+"/execute/async", map[string]any{"script": "setTimeout(arguments[0], 50)", "args": []any{}}, &ignored)
	}
}

// keys presses keys one after the other, as a keyboard does.
func (b *browser) keys(keys ...string) {
	b.t.Helper()
	var actions []map[string]string
	for _, key := range keys {
		actions = append(actions, map[string]string{"type": "keyDown", "value": key}, map[string]string{"type": "keyUp", "value": key})
	}
	b.call(http.MethodPost, b.session+"/actions", map[string]any{"actions": []any{map[string]any{"type": "key", "id": "keys", "actions": actions}}}, nil)
}

// The keys by WebDriver's numbers (W3C WebDriver, 17.4.2).
const (
	keyTab    = "\ue004"
	keyEnter  = "\ue007"
	keyEscape = "\ue00c"
)

// tools sends a command of the DevTools protocol.
func (b *browser) tools(command string, params map[string]any, answer any) {
	b.t.Helper()
	b.call(http.MethodPost, b.session+"/goog/cdp/execute", map[string]any{"cmd": command, "params": params}, answer)
}

// headers are sent with every request from now on.
func (b *browser) headers(headers map[string]string) {
	b.t.Helper()
	b.tools("Network.enable", map[string]any{}, nil)
	b.tools("Network.setExtraHTTPHeaders", map[string]any{"headers": headers}, nil)
}

func (b *browser) screen(width, height int) {
	b.t.Helper()
	b.tools("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}, nil)
}

func (b *browser) scheme(which string) {
	b.t.Helper()
	b.tools("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]string{"name": "prefers-color-scheme", "value": which}}}, nil)
}

// complaints are the warnings and errors of the page since the last call.
func (b *browser) complaints() (lines []string) {
	b.t.Helper()
	var entries []struct{ Level, Message string }
	b.call(http.MethodPost, b.session+"/se/log", map[string]string{"type": "browser"}, &entries)
	for _, e := range entries {
		lines = append(lines, fmt.Sprintf("%s: %s", e.Level, e.Message))
	}
	return lines
}

// picture is a PNG of what is on the screen.
func (b *browser) picture() []byte {
	b.t.Helper()
	var shot string
	b.call(http.MethodGet, b.session+"/screenshot", nil, &shot)
	png, err := base64.StdEncoding.DecodeString(shot)
	if err != nil {
		b.t.Fatal(err)
	}
	return png
}
