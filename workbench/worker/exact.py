"""`python -m workbench.worker.exact RESOLVED`: one training step traced at its true shapes, beside the closed form."""

from __future__ import annotations

import sys

from rich.console import Console

from workbench import bench

_GIB = 2.0**30


def main() -> int:
    """Trace and print."""

    def work() -> None:
        bench.quiet_libraries()
        from workbench.recipe.resolved import Resolved
        from workbench.worker.tracing import trace_recipe

        console = Console(highlight=False, soft_wrap=True)
        console.print("[dim]tracing one step at its true shapes ...[/dim]")
        found = trace_recipe(Resolved.model_validate_json(sys.argv[1], strict=False))
        peak = found.traced.peak_bytes
        console.print(
            f"traced, micro-batches of {found.batch.rows} x {found.batch.length} tokens: "
            f"[bold]{peak / _GIB:,.2f} GiB[/bold] at the peak of training; by the closed form "
            f"{found.predicted_bytes / _GIB:,.2f} GiB ({found.predicted_bytes / peak - 1:+.1%}); "
            f"the backward pass peaks in {found.traced.largest_operation}"
        )

    return bench.ended(work)


if __name__ == "__main__":
    sys.exit(main())
