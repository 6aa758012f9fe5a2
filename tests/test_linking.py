"""Words of the glossary link to it once a page, and only where they are the book's words."""

from types import SimpleNamespace

from docutils import nodes
from docutils.utils import new_document

from softprune import linking, paths

TERMS = ["gate", "shadow model", "soft", "best", "AUC"]


def page(*children):
    document = new_document("page")
    document.extend(children)
    return document


def links(document):
    return [(n["reftarget"], n.astext()) for n in document.findall()
            if type(n).__name__ == "pending_xref"]


def test_the_first_use_is_linked_and_the_text_stays_as_it_was():
    said = "Two gates and a gate; shadow models too."
    document = page(nodes.paragraph("", said))
    assert linking.link(document, TERMS) == 2
    assert links(document) == [("gate", "gates"), ("shadow model", "shadow models")]
    assert document.astext() == said


def test_ordinary_words_are_linked_as_names_only():
    document = page(nodes.paragraph("", "", nodes.Text("the best and soft, by "),
                                    nodes.literal("", "best"), nodes.Text(" and "),
                                    nodes.literal("", "best"), nodes.literal("", "gate=1")))
    linking.link(document, TERMS)
    assert links(document) == [("best", "best")]


def test_headings_links_and_tables_are_left_alone_and_parts_of_words():
    table = nodes.table("", nodes.tgroup("", nodes.tbody("", nodes.row("", nodes.entry(
        "", nodes.paragraph("", "a gate"))))))
    document = page(nodes.section("", nodes.title("", "The gate")), table,
                    nodes.paragraph("", "", nodes.reference("", "a gate", refuri="x")),
                    nodes.paragraph("", "investigated, gated"))
    assert linking.link(document, TERMS) == 0


def test_the_glossary_names_them():
    terms = linking.terms_of((paths.root() / "book" / "glossary.md").read_text())
    assert {"gate", "head mask", "LiRA", "T1"} < set(terms)
    assert set(terms) > linking.ORDINARY  # none is kept that the glossary has lost


def test_a_changed_glossary_is_read_by_every_page_again():
    asked = {}
    linking.setup(SimpleNamespace(connect=lambda event, do: asked.update({event: do})))
    env, outdated = SimpleNamespace(found_docs={"a", "glossary"}), asked["env-get-outdated"]
    assert outdated(None, env, set(), {"glossary"}, set()) == {"a", "glossary"}
    assert not outdated(None, env, set(), {"a"}, set())
