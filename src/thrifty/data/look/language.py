"""Recognise what a language model learns from: files of text or source."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from thrifty.data.look.found import Look, Seen, job_name, shown
from thrifty.spec import SPLITS
from thrifty.spec.units import format_bytes

TEXT_SUFFIXES = frozenset(
    {
        *(".txt", ".md", ".rst", ".tex", ".html", ".xml", ".css", ".sql", ".sh"),
        *(".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".rs", ".go", ".java", ".kt", ".js", ".ts"),
        *(".jl", ".r", ".rb", ".php", ".swift", ".scala", ".hs", ".lua", ".pl"),
    }
)


def corpus(seen: Seen) -> Look | None:
    """A folder of text or source files."""
    path, texts = seen.path, [file for file in seen.files if file.suffix in TEXT_SUFFIXES]
    if path.is_file() or len(texts) < len(SPLITS):
        return None
    counts = Counter(file.suffix for file in texts)
    suffix = max(counts, key=lambda each: (counts[each], each))
    chosen = [file for file in texts if file.suffix == suffix]
    total = sum(file.size for file in chosen)
    # suffixes are compared in lower case, names by the pattern as written
    glob = f"**/*{Counter(Path(file.name).suffix for file in chosen).most_common(1)[0][0]}"
    others = f"; beside them {len(texts) - len(chosen):,} other text files" if len(texts) > len(chosen) else ""
    why = {"data.files": f"the commonest kind of text: {len(chosen):,} of {len(texts):,} files"}
    # 20 tokens a parameter (Hoffmann et al. 2022), about 4 bytes a token: gpt-mini's 10.6 M parameters could use
    # 850 MB; from a tenth of that on it is the better buy, since several epochs over the same text still help
    # (Muennighoff et al. 2023)
    model = "gpt-mini" if total >= 85e6 else "gpt-nano"
    why["model"] = f"by the amount of text, {format_bytes(total)}; gpt-mini from 85 MB on"
    data = {"kind": "language", "path": str(path), "files": glob}
    says = f"{shown(path)}: {len(chosen):,} files *{suffix}, {format_bytes(total)} of text{others}"
    return Look("language", says, {"name": job_name(path), "data": data, "model": model}, why)
