package command

import (
	"fmt"

	"github.com/spf13/cobra"
)

// completionCommand is the command "completion" of a program. Cobra's own has no example and one
// command a shell.
func completionCommand(program string) *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print a script that completes commands and flags",
		Long: `Prints a script for bash, zsh, fish or powershell. bash needs the package bash-completion; zsh needs
compinit ("autoload -U compinit; compinit" in ~/.zshrc).`,
		Example: fmt.Sprintf(`  source <(%[1]s completion bash)                                     # in this shell
  %[1]s completion bash >/etc/bash_completion.d/%[1]s                 # for everybody
  %[1]s completion zsh >"${fpath[1]}/_%[1]s"
  %[1]s completion fish >~/.config/fish/completions/%[1]s.fish`, program),
		Args:      Args(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			default:
				return root.GenPowerShellCompletionWithDesc(out)
			}
		},
	}
}

// Choices completes a flag by its few words.
func Choices[T ~string](cmd *cobra.Command, flag string, words ...T) {
	var list []cobra.Completion
	for _, word := range words {
		list = append(list, string(word))
	}
	// Its only fault is a flag that does not exist, which a test of completion would see.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp))
}
