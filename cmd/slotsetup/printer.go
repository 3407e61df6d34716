package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// printer writes a command's answer: text for people, or one JSON object a line, the last a
// summary with "ok".
type printer struct {
	cmd  *cobra.Command
	json bool
	err  error // the first fault of writing
}

func printerFlag(cmd *cobra.Command) *printer {
	p := &printer{cmd: cmd}
	cmd.Flags().BoolVar(&p.json, "json", false, "one object a line, last a summary with \"ok\"")
	return p
}

func (p *printer) object(v any) {
	out := json.NewEncoder(p.cmd.OutOrStdout())
	out.SetEscapeHTML(false)
	p.err = errors.Join(p.err, out.Encode(v))
}

func (p *printer) text(s string) error {
	_, err := io.WriteString(p.cmd.OutOrStdout(), s)
	p.err = errors.Join(p.err, err)
	return p.err
}

// asks puts a question on a terminal, to stderr; there is an answer only where stdin is one.
func (p *printer) asks(question string) (yes, terminal bool, err error) {
	in, ok := p.cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return false, false, nil
	}
	if _, err := io.WriteString(p.cmd.ErrOrStderr(), question+" Type yes to go on: "); err != nil {
		return false, true, err
	}
	answer, err := bufio.NewReader(in).ReadString('\n')
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return strings.TrimSpace(answer) == "yes", true, err
}
