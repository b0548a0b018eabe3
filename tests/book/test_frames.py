"""The slider over pictures on a built page: no kernel, keys alone."""

PAGE = "chapters/05-second-order/01-newton.html"
READY = """() => {
  const handle = document.querySelector(".optlab-play .noUi-handle");
  return handle && handle.ariaLabel && document.querySelectorAll(".optlab-play svg").length === 2;
}"""
SEEN = """() => {
  const box = document.querySelector(".optlab-play");
  return {
    status: box.querySelector("[role=status]").innerText,
    state: box.querySelector("[role=status]").dataset.state,
    pictures: [...box.querySelectorAll("svg")].map((svg) => svg.innerHTML),
    words: box.querySelector("[role=slider]").ariaValueText,
  };
}"""


def test_keys_change_pictures_and_words(page):
    tab = page(PAGE)
    tab.wait_for_function(READY, timeout=30_000)
    handle = tab.query_selector(".optlab-play [role=slider]")
    assert handle.get_attribute("aria-label") == "damping δ"
    before = tab.evaluate(SEEN)
    assert before["state"] == "open" and before["words"] == "0"
    handle.focus()
    for _ in range(3):
        handle.press("ArrowRight")
    tab.wait_for_function(
        "document.querySelector('.optlab-play [role=slider]').ariaValueText === '0.9'"
    )
    after = tab.evaluate(SEEN)
    assert after["state"] == "reached" and "Goal reached." in after["status"]
    assert "δ = 0.9" in after["status"]
    pairs = zip(before["pictures"], after["pictures"], strict=True)
    assert all(old != new for old, new in pairs)
