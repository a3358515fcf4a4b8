"""`python -m workbench.worker.generate RUN PROMPTS TOKENS` (PROMPTS: a JSON file): the result and its base
answer side by side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from workbench import bench, files
from workbench.visible import visible


def main() -> int:
    """Answer every prompt twice, greedily."""

    def work() -> None:
        bench.quiet_libraries()
        from workbench.data.formats import Message, UnusableError
        from workbench.errors import Problem, RunError
        from workbench.evaluation.scoring import Scorer, greedy
        from workbench.methods import results
        from workbench.progress import Progress
        from workbench.runs.run import Run
        from workbench.worker.setup import set_up, settle

        run = Run(Path(sys.argv[1]))
        prompts, tokens = files.read_json(Path(sys.argv[2]))["prompts"], int(sys.argv[3])
        resolved = run.resolved()
        progress = Progress()
        settle(run, resolved)
        ready = set_up(run, resolved, resolved.suite, progress)
        renderer = ready.renderer(ready.template)
        # in plain, formats with turns end a question with a line's end; a card's patterns say all themselves
        end = "" if resolved.data.card.format == "prompt_completion" else "\n"
        asked = []
        for prompt in prompts:
            try:
                asked.append(renderer.prompt([Message("user", prompt + end)]))
            except UnusableError as error:
                raise RunError(Problem("prompt", str(error))) from None
            if len(asked[-1]) + tokens > ready.context:
                raise RunError(
                    Problem(
                        "prompt",
                        f"is {len(asked[-1])} tokens long and the answer up to {tokens}, the base takes "
                        f"{ready.context}",
                        "shorten it, or ask for fewer --tokens",
                    )
                )

        def answers(model: Any) -> list[str]:
            size = resolved.recipe.evaluation.batch_size
            scorer = Scorer(model, renderer, ready.context, ready.pad_id, size, progress)
            batches = [asked[at : at + size] for at in range(0, len(asked), size)]
            return [text for batch in batches for text, _ in greedy(scorer, batch, tokens)]

        base = answers(results.load(ready.loading, None))
        ours = answers(results.load(ready.loading, run.adapter)) if resolved.trains else base
        console = Console()
        table = Table(show_lines=True)
        for heading in ("prompt", "base", run.name):
            table.add_column(heading, overflow="fold")
        for row in zip(prompts, base, ours, strict=True):
            table.add_row(*(Text(visible(text)) for text in row))
        console.print(table)

    return bench.ended(work)


if __name__ == "__main__":
    sys.exit(main())
