package command

import (
	"regexp"

	"example.com/tiffin/internal/checkup"
)

var ownCommand = regexp.MustCompile(`\b(?:tiffin (?:doctor|migrate)|slotsetup (?:plan|apply|status|drop))\b`)

// SameSettings has the commands that a fix names read the settings' file that this one has read, so that
// what is copied does not work on another table; file is that of ConfigFlag, empty: the environment alone.
func SameSettings(fix, file string) string {
	if file == "" {
		return fix
	}
	return ownCommand.ReplaceAllStringFunc(fix, func(words string) string { return words + " -c " + checkup.Word(file) })
}
