package acceptance

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// secret is one that was planted. Its text begins with a word that stands nowhere else and that no
// encoding of URLs changes, so that a part of it is found too.
type secret struct{ what, word, text string }

// plant makes a secret whose rest needs quoting wherever it is written.
func plant(what string) secret {
	word := "xq7" + what + "zk"
	return secret{what, word, word + `/p@ss w+%1?#`}
}

// forms are all that the secret is recognised by.
func (s secret) forms() []string {
	forms := []string{s.word, hex.EncodeToString([]byte(s.word))}
	for _, text := range []string{s.text, url.QueryEscape(s.text), s.word} {
		forms = append(forms, insideBase64(text)...)
	}
	return forms
}

// insideBase64 is what is sure to stand in every base64 text of whatever holds the secret.
func insideBase64(text string) (forms []string) {
	for before := range 3 {
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			encoded := encoding.EncodeToString([]byte(strings.Repeat("x", before) + text))
			encoded = encoded[[]int{0, 2, 3}[before]:]
			if (before+len(text))%3 != 0 {
				encoded = encoded[:len(encoded)-1] // its last letter depends on what follows
			}
			if !slices.Contains(forms, encoded) {
				forms = append(forms, encoded)
			}
		}
	}
	return forms
}

// lines makes a secret of each line of a key file.
func lines(t *testing.T, what, path string) (found []secret) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); len(line) > 20 && !strings.HasPrefix(line, "-----") {
			found = append(found, secret{what, line, line})
		}
	}
	return found
}

// lookout reads whatever a program shows, in search of the secrets.
type lookout struct {
	secrets []secret
	mu      sync.Mutex
	told    map[string]bool // once is enough
	places  map[string]int  // bytes read
}

func (l *lookout) look(t *testing.T, where string, text []byte) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.told == nil {
		l.told, l.places = map[string]bool{}, map[string]int{}
	}
	l.places[where] += len(text)
	lower := bytes.ToLower(text)
	for _, s := range l.secrets {
		for _, form := range s.forms() {
			at := bytes.Index(text, []byte(form))
			if at < 0 && form == s.word {
				at = bytes.Index(lower, []byte(strings.ToLower(form)))
			}
			if key := where + s.what; at >= 0 && !l.told[key] {
				l.told[key] = true
				t.Errorf("%s tells %s: …%s…", where, s.what, text[max(0, at-80):min(len(text), at+80)])
			}
		}
	}
}

// processList is what everybody sees of a process and its children.
func processList(pid int) []byte {
	var seen bytes.Buffer
	for _, name := range []string{"cmdline", "comm", "task/*/comm"} {
		paths, _ := filepath.Glob(fmt.Sprintf("/proc/%d/%s", pid, name))
		for _, path := range paths {
			text, _ := os.ReadFile(path) // it may have ended
			seen.Write(bytes.ReplaceAll(text, []byte{0}, []byte{' '}))
		}
	}
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", pid))
	for child := range strings.FieldsSeq(string(children)) {
		text, _ := os.ReadFile("/proc/" + child + "/cmdline")
		seen.Write(bytes.ReplaceAll(text, []byte{0}, []byte{' '}))
	}
	return seen.Bytes()
}

// A search that finds nothing proves something only if it finds what is there.
func TestPlantedSecretsAreFoundInEveryForm(t *testing.T) {
	t.Parallel()
	s := plant("form")
	for _, told := range []string{
		s.text, "x" + s.text[:len(s.word)], url.QueryEscape(s.text), url.PathEscape(s.text), strings.ToUpper(s.text), fmt.Sprintf("%q", s.text), hex.EncodeToString([]byte(s.text)),
		base64.StdEncoding.EncodeToString([]byte(s.text)), base64.StdEncoding.EncodeToString([]byte("\x00u\x00" + s.text)), base64.URLEncoding.EncodeToString([]byte("u:" + s.text + "!")),
		base64.StdEncoding.EncodeToString([]byte("postgres://u:" + url.QueryEscape(s.text) + "@h/d")), base64.StdEncoding.EncodeToString([]byte("an" + s.word)),
	} {
		found := slices.ContainsFunc(s.forms(), func(form string) bool {
			return strings.Contains(told, form) || strings.Contains(strings.ToLower(told), form)
		})
		if !found {
			t.Errorf("%q is not found", told)
		}
	}
	if list := string(processList(os.Getpid())); !strings.Contains(list, filepath.Base(os.Args[0])) {
		t.Errorf("the list of processes is %q", list)
	}
}
