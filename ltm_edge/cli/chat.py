"""``ltm-edge chat``: a conversation in a terminal, or one answer per line of piped input."""

from __future__ import annotations

import sys

import click

from ltm_edge.cli.options import (
    FORMS,
    MemoryOptions,
    ModelOptions,
    bundle_argument,
    memory_options,
    model_options,
    sampling_options,
)

__all__ = ["chat"]


@click.command(short_help="Talk to a model in scenes.")
@bundle_argument
@click.option("-c", "--continue", "resume", is_flag=True, help="Go on with the session that was saved last.")
@click.option("--session", "name", metavar="NAME", help="Go on with a named session, or begin it.")
@click.option("--private", "--no-save", "private", is_flag=True, help="Save nothing: no session, scene, or input line.")
@click.option("--form", type=click.Choice(FORMS), default="auto", show_default=True, help="Form of the answers.")
@click.option("--template", metavar="NAME", help="Scene template to use for every answer.")
@click.option("--system", metavar="TEXT", help="A system prompt of your own, added to the template's directive.")
@memory_options
@sampling_options
@model_options
def chat(
    bundle: str | None,
    resume: bool,
    name: str | None,
    private: bool,
    form: str,
    template: str | None,
    system: str | None,
    memory: MemoryOptions,
    sampling: dict[str, object],
    model: ModelOptions,
) -> int:
    """Talk to a model in scenes.

    Without BUNDLE_OR_GGUF the demo model answers. Sessions are saved; -c goes on with the last one. Scenes of earlier
    conversations come back where they fit; --no-memory leaves them out.

    Piped input is taken as one request per line, and each gets one line on stdout: line breaks inside an answer
    become blanks (--form yaml separates its documents by --- lines instead), an empty line or a request that
    failed gets an empty line, and slash commands are plain text.
    """
    if name is not None and resume:
        raise click.UsageError("--continue goes on with the last session and --session with a named one; give one.")
    if name is not None and private and not resume:
        raise click.UsageError("--private saves nothing, --session NAME names what is saved; give one.")
    from ltm_edge.cli import console, options
    from ltm_edge.cli.answering import terminable
    from ltm_edge.cli.chat_loop import Chat, ChatStart
    from ltm_edge.cli.chat_talk import talk, talk_piped

    interactive = sys.stdin is not None and sys.stdin.isatty()
    start = ChatStart(
        name=name,
        resume=resume,
        save=not private,
        system=system,
        template=template,
        lang=model.lang,
        form=form,
        sampling=sampling,
        memory=memory,
    )
    with terminable():
        loaded = options.open_bundle(bundle, model)
        try:
            with Chat(loaded, start) as conversation:
                if interactive:
                    for line in loaded.describe():
                        console.notice(line)
                    return talk(conversation)
                return talk_piped(conversation, form)
        finally:
            loaded.close()
