"""`rpr completion`: a completion script for commands and options, for common shells.

The script contains the words of each command, so that a shell never waits for rpr. Values are completed as file names
by the shell.
"""

from __future__ import annotations

import click

from repeater.cli.commands import COMMANDS, ONE_OFF

SHELLS = ("bash", "zsh", "fish", "powershell")


@click.command(epilog="Example: source <(rpr completion bash)")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a completion script for a shell.

    bash and zsh: `source <(rpr completion bash)`. fish: `rpr completion fish | source`. PowerShell:
    `rpr completion powershell | Out-String | Invoke-Expression`. Add the line to the start-up file of the shell.
    """
    print(_WRITERS[shell](completions()), end="")


def completions() -> dict[str, tuple[str, list[str]]]:
    """Maps each command and short form to its description and its options."""
    from importlib import import_module

    from repeater.cli.oneoff.options import COMMANDS as ONE_OFF_COMMANDS

    found: dict[str, tuple[str, list[str]]] = {}
    for name, (module, function, text, shorts) in COMMANDS.items():
        command = getattr(import_module(module), function)
        flags = [flag for one in command.params if isinstance(one, click.Option) for flag in one.opts]
        for word in (name, *shorts):
            found[word] = (text, [*flags, "--help"])
    for name, (text, shorts) in ONE_OFF.items():
        flags = [flag for option in ONE_OFF_COMMANDS[name].options for flag in option.flags]
        for word in (name, *shorts):
            found[word] = (text, flags)
    return found


def _bash(found: dict[str, tuple[str, list[str]]]) -> str:
    cases = "\n".join(f"    {word}) words='{' '.join(flags)}' ;;" for word, (_, flags) in found.items())
    return f"""\
_rpr() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} words=
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W '{" ".join(found)} --help --version' -- "$current"))
    return
  fi
  case $current in -*) ;; *) return ;; esac
  case ${{COMP_WORDS[1]}} in
{cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _rpr rpr
"""


def _zsh(found: dict[str, tuple[str, list[str]]]) -> str:
    return "autoload -Uz bashcompinit && bashcompinit\n" + _bash(found)


def _fish(found: dict[str, tuple[str, list[str]]]) -> str:
    lines = []
    for word, (text, flags) in found.items():
        quoted = text.replace("'", "\\'")
        lines.append(f"complete -c rpr -n __fish_use_subcommand -f -a {word} -d '{quoted}'")
        for flag in flags:
            kind = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
            lines.append(f"complete -c rpr -n '__fish_seen_subcommand_from {word}' {kind}")
    return "\n".join(lines) + "\n"


def _powershell(found: dict[str, tuple[str, list[str]]]) -> str:
    rows = "\n".join(
        f"    '{word}' = @({', '.join(repr(flag) for flag in flags)})" for word, (_, flags) in found.items()
    )
    return f"""\
Register-ArgumentCompleter -Native -CommandName rpr -ScriptBlock {{
  param($current, $line, $position)
  $options = @{{
{rows}
  }}
  $words = $line.CommandElements | ForEach-Object {{ $_.ToString() }}
  $first = $words.Count -le 2 -and -not $current.StartsWith('-')
  $choices = if ($first) {{ $options.Keys }} else {{ $options[$words[1]] }}
  $choices | Where-Object {{ $_ -like "$current*" }} | Sort-Object | ForEach-Object {{
    [System.Management.Automation.CompletionResult]::new($_, $_, 'ParameterValue', $_)
  }}
}}
"""


_WRITERS = {"bash": _bash, "zsh": _zsh, "fish": _fish, "powershell": _powershell}
