"""The reference pages: method cards, glossary, index of results."""

import inspect
import json
import re
from pathlib import Path

import pytest
import torch
from bs4 import BeautifulSoup

import optlab
from book.extensions import CLAIMS, ROOT, claims, executed, methods, results
from optlab.rules import RULES

SOURCE = methods.METHODS.read_text("utf-8")
METHODS = methods.load()
GLOSSARY = (ROOT / "book" / "glossary.md").read_text("utf-8")
WRITTEN = [results.page(folder) for folder in executed.folders().values()]


def soup(path: Path) -> BeautifulSoup:
    """A page, with plain apostrophes."""
    return BeautifulSoup(path.read_text("utf-8").replace("’", "'"), "html.parser")


# --- the source of the cards ----------------------------------------------------------------


def test_every_optimizer_has_an_entry():
    assert set(METHODS) == set(optlab.__all__)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[Adamax]", "[Adammax]", "lacks Adamax"),
        ("[SGD]", "[Lion]\n[SGD]", "has Lion"),
        ('typical = "As Adam, and no', 'typicall = "As Adam, and no', "RAdam: no key 'typicall'"),
        ('use = "Adam without', 'avoid = "Adam without', "[Cc]annot overwrite"),
        ('avoid = "Beside a warm-up, which does nearly the same by hand."\n', "", "missing.*avoid"),
        ('papers = ["liu2020"]', 'papers = ["liu2019"]', "RAdam: no paper 'liu2019'"),
        ('claims = ["A1",', 'claims = ["A99",', "Adagrad: no claim 'A99'"),
        ('where = ["adaptive#early', 'where = ["adaptiv#early', "RAdam: no chapter 'adaptiv'"),
        ("over those of Adam, to the", "over those of Adam to the", "KFAC: no bar"),
        ('papers = ["liu2020"]', 'papers = ["liu2020"]\ncost = "much"', "RAdam: listings and cost"),
    ],
)
def test_a_wrong_source_is_refused(old, new, message):
    text = SOURCE.replace(old, new, 1)
    assert text != SOURCE
    with pytest.raises(ValueError, match=message):
        methods.load(text)


def test_cards_are_in_order_of_complexity():
    order = [list(RULES).index(rules[0]) for name in METHODS if (rules := methods.rules(name))]
    assert order == sorted(order)
    named = [bool(methods.rules(name)) for name in METHODS]
    assert named == sorted(named, reverse=True)  # those of second order are last


def test_every_rule_is_on_a_card():
    assert {rule for name in METHODS for rule in methods.rules(name)} == set(RULES)


# --- what is measured -----------------------------------------------------------------------


def torchs(name: str, settings: dict) -> float:
    """How many numbers torch's namesake keeps for each parameter."""
    p = torch.nn.Parameter(torch.ones(50))
    optimizer = getattr(torch.optim, name)([p], lr=0.01, **settings)
    for _ in range(2):
        p.grad = torch.ones(50)
        optimizer.step()
    tensors = [v for v in optimizer.state[p].values() if torch.is_tensor(v) and v.numel() > 1]
    return sum(tensor.numel() for tensor in tensors) / 50


SETTINGS = [
    (name, settings)
    for name, method in METHODS.items()
    for settings in (method.settings or {"": {}}).values()
]


@pytest.mark.parametrize(("name", "settings"), [s for s in SETTINGS if hasattr(torch.optim, s[0])])
def test_state_is_torchs(name, settings):
    assert sum(methods.measure(name, settings).state.values()) == torchs(name, settings)


@pytest.mark.parametrize(("name", "floats"), [("LARS", 1), ("LAMB", 2), ("Newton", 0)])
def test_state_of_what_torch_lacks(name, floats):
    assert sum(methods.measure(name, {}).state.values()) == floats


def test_state_of_kfac_is_its_factors_and_their_inverses():
    d, found = methods.WIDTH, methods.measure("KFAC", {})
    n = d * (d + 1)
    assert sum(found.state.values()) == pytest.approx((n + 2 * (d + 1) ** 2 + 2 * d**2) / n)


def test_operations_are_the_rules():
    assert methods.measure("SGD", {}).operations == 1  # theta - lr g
    # Two norms, each a square and a sum; decay, its product with the rate, velocity, step.
    assert methods.measure("LARS", {}).operations == 8
    found = methods.measure("RMSprop", {"centered": True, "momentum": 0.9})
    assert found.rule == "rmsprop_centered_momentum"
    assert methods.measure("Adam", {}).operations < methods.measure("AdamW", {}).operations


def test_timings_are_of_the_setting_alone():
    for row in methods.timings("SGD").values():
        assert row["bar"].endswith(": SGD, ResNet-18")
    assert set(methods.timings("Adam")) == {"default", "compiled"}


# --- the page of methods --------------------------------------------------------------------


def test_cards_are_complete(book):
    page = soup(book / "book" / "methods.html")
    recorded = {record["anchor"] for record in json.loads(CLAIMS.read_text("utf-8"))}
    for name, method in METHODS.items():
        card = page.select_one(f"section#method-{name.lower()}")
        terms = {term.get_text() for term in card.select("dt")}
        assert {"State", "Cost of a step", "Defaults", "Typical values", "Paper"} <= terms, name
        assert {"When to use it", "When not", "Explained in", "In the package"} <= terms, name
        assert card.select_one("div.math") and card.select(".optlab-listing"), name
        links = [link["href"] for link in card.select("a[href]")]
        for claim in map(claims.anchor, method.claims):
            assert claim not in recorded or any(link.endswith(f"#{claim}") for link in links)
        text = card.get_text()
        for key in methods.defaults(name):
            assert f"{key}=" in text, (name, key)
        for row in methods.agreement(name) + [methods.rows()[bar] for bar in method.bars]:
            assert f"{row['value']:.3g}" in text
            assert row["holds"] is not False or "missed" in text


def test_table_has_every_method(book):
    table = soup(book / "book" / "methods.html").select_one(".optlab-methods table")
    assert [row.td.get_text(strip=True) for row in table.select("tbody tr")] == list(METHODS)
    assert all(row.select_one("td a") for row in table.select("tbody tr"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_cards_are_one_column_on_a_phone_and_two_beside(page, scheme):
    place = """() => { const list = document.querySelector("#method-adam dl");
      const [a, b] = [list.querySelector("dt"), list.querySelector("dd")];
      return [a, b].map((node) => node.getBoundingClientRect().left); }"""
    for width, columns in [(375, 1), (1280, 2)]:
        tab = page("book/methods.html", width=width, color_scheme=scheme)
        assert len(set(tab.evaluate(place))) == columns


# --- glossary -------------------------------------------------------------------------------


def entries() -> dict[str, str]:
    """Terms with what stands below them."""
    body = GLOSSARY.split("```{glossary}\n")[1].rpartition("```")[0]
    parts = re.split(r"\n\n(?=\S)", body.strip())
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


def test_terms_are_in_alphabetical_order():
    terms = [term.casefold() for term in entries()]
    assert terms == sorted(terms)
    assert len(terms) == len(set(terms)) > 70


@pytest.mark.parametrize("term", entries())
def test_entry_is_explained_and_has_a_place(term):
    text = re.sub(r"\s+", " ", entries()[term]).strip()
    *_, places = entries()[term].split("\n\n")
    assert 1 <= len(re.findall(r"[.!?](?:\s|$)", text.removesuffix(places.strip()))) <= 3
    assert re.search(r"\{chapter\}|\[\]\(", places)


def test_entries_of_written_chapters_lead_into_them(book):
    page = soup(book / "book" / "glossary.html")
    for item in page.select("dl.glossary dd"):
        links = [link["href"] for link in item.select("a[href]")]
        assert links, item.get_text()
    found = {
        dt.contents[0].strip(): dt.find_next_sibling("dd") for dt in page.select("dl.glossary dt")
    }
    assert set(found) == set(entries())
    for term, text in entries().items():
        links = " ".join(link["href"] for link in found[term].select("a[href]"))
        for name in set(re.findall(r"\{chapter\}`([\w-]+)", text)) & set(executed.folders()):
            assert f"chapters/{executed.folders()[name]}/" in links, term


# --- index of results -----------------------------------------------------------------------


TEXT = """
```{prf:theorem} One
:label: thm-one

If $a$, then

$$
b .
$$ (eq-one)
```

```{prf:proof}
Clear.
```

```{prf:definition} Two
:label: def-two
A word.
```
"""


def test_boxes_are_read_off_a_page():
    one, two = results.boxes(TEXT)
    assert one == results.Box("thm-one", "theorem", "One", "If $a$, then\n\n$$\nb .\n$$", True)
    assert two == results.Box("def-two", "definition", "Two", "A word.", False)
    with pytest.raises(ValueError, match="the theorem 'One' has no label"):
        results.boxes(TEXT.replace(":label: thm-one\n", ""))


def test_every_box_has_a_title_and_a_label_of_its_own():
    found = [box for path in WRITTEN for box in results.boxes(path.read_text("utf-8"))]
    assert [box.label for box in found if not box.title] == []
    labels = [box.label for box in found]
    assert len(labels) == len(set(labels)) >= 25


def test_questions_lead_to_what_is_there():
    texts = {path.parent.name.partition("-")[2]: path.read_text("utf-8") for path in WRITTEN}
    labels = {box.label for text in texts.values() for box in results.boxes(text)}
    labels |= {match["label"] for t in texts.values() for match in results.FORMULA.finditer(t)}
    for label in results.questions():
        if "#" not in label:
            assert label in labels, label
        else:
            assert label.partition("#")[0] in texts, label  # the build checks the heading


def test_page_answers_where_2_over_l_is_proved(book):
    page = soup(book / "book" / "results.html")
    found = [tag for tag in page.select(".optlab-result") if "2/L proved" in tag.get_text()]
    assert len(found) == 1
    links = {link.get_text(): link["href"] for link in found[0].select("a")}
    assert links["proof"].endswith("01-introduction/index.html#proof-thm-descent")
    assert "The descent lemma" in found[0].get_text()


def test_page_has_every_box_and_proof(book):
    page = soup(book / "book" / "results.html")
    links = {link["href"].rpartition("#")[2] for link in page.select(".optlab-results a[href]")}
    for path in WRITTEN:
        for box in results.boxes(path.read_text("utf-8")):
            assert box.label in links
            assert (f"proof-{box.label}" in links) == box.proved
    asked = page.get_text()
    assert all(question in asked for lines in results.questions().values() for question in lines)


def test_listings_are_documented():
    for method in METHODS.values():
        for place in methods.listings(method):
            module, _, name = place.rpartition(".")
            code = __import__(f"optlab.{module}", fromlist=[name])
            assert inspect.getdoc(getattr(code, name))
