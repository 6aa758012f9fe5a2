"""A Sphinx extension: where a page uses a word of the glossary for the first time, it links there.

Words that also mean what they mean everywhere are linked only where they stand as a name, in
`code`; headings, tables, captions and what is a link already are left alone.
"""

import re
from pathlib import Path

from docutils import nodes

# in plain text these are ordinary English, or too frequent to be worth a link
ORDINARY = {"bar", "best", "blend", "deep", "direction", "feature", "floor", "folding", "guarded",
            "hard", "margin", "others", "plain", "points", "profile", "prototype", "request",
            "searched", "shift", "soft", "stage", "tied", "together"}
APART = (nodes.title, nodes.reference, nodes.table, nodes.caption, nodes.literal_block,
         nodes.math, nodes.math_block, nodes.raw, nodes.comment, nodes.footnote)
UNLINKED = ("glossary", "api", "notation", "references")


def terms_of(glossary: str) -> list[str]:
    """The terms of the `{glossary}` block of a page's source, in its order.

    Example:
        >>> terms_of("Words\\n```{glossary}\\ngate\\n  A factor.\\n\\nhead mask\\n  A fake.\\n```")
        ['gate', 'head mask']
    """
    block = glossary.split("```{glossary}\n", 1)[1].split("\n```", 1)[0]
    return [line for line in block.splitlines() if line and not line.startswith(" ")]


def link(document: nodes.document, terms) -> int:
    """Link the first use of every term; returns how many were found."""
    named = {t: t for t in terms}
    spoken = sorted((t for t in terms if t not in ORDINARY), key=len, reverse=True)
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, spoken))})(e?s)?\b")
    done: set[str] = set()
    for node in list(document.findall(lambda n: isinstance(n, nodes.literal | nodes.Text))):
        if _inside(node, APART) or (isinstance(node, nodes.Text) and _inside(node, nodes.literal)):
            continue
        if isinstance(node, nodes.literal):
            term = named.get(node.astext())
            if term and term not in done:
                done.add(term)
                node.replace_self(_to(term, node.deepcopy()))
        elif spoken:
            _link_text(node, pattern, done)
    return len(done)


def _inside(node, kinds) -> bool:
    while node := node.parent:
        if isinstance(node, kinds) or "pending_xref" in type(node).__name__:
            return True
    return False


def _link_text(node: nodes.Text, pattern: re.Pattern, done: set[str]) -> None:
    """Replace one text node by itself with links where terms are used for the first time."""
    text, at, made = node.astext(), 0, []
    for found in pattern.finditer(text):
        if found[1] not in done:
            done.add(found[1])
            made += [nodes.Text(text[at:found.start()]), _to(found[1], nodes.inline("", found[0]))]
            at = found.end()
    if made:
        node.parent.replace(node, [*made, nodes.Text(text[at:])])


def _to(term: str, shown: nodes.Element) -> nodes.Element:
    from sphinx.addnodes import pending_xref

    shown["classes"].append("softprune-term")
    return pending_xref("", shown, refdomain="std", reftype="term", reftarget=term,
                        refexplicit=True, refwarn=True)


def setup(app) -> dict:
    """What Sphinx calls."""
    def read(app, document):
        if app.env.docname not in UNLINKED:
            page = Path(app.srcdir) / "glossary.md"
            link(document, terms_of(page.read_text()) if page.exists() else [])

    def outdated(app, env, added, changed, removed):
        # what a page links to was decided when it was read
        return env.found_docs if "glossary" in changed else ()

    app.connect("doctree-read", read)
    app.connect("env-get-outdated", outdated)
    return {"version": "1", "parallel_read_safe": True, "env_version": 1}
