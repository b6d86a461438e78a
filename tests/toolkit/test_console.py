from dualtune_edge.toolkit.console import table_lines


def test_names_that_look_like_markup_stand_as_they_are() -> None:
    rows = [("[/b]", "1"), ("[red]x", "22"), (":cat:", "3")]
    assert table_lines(("name", "n"), rows, left={"name"}) == ["name     n", "[/b]     1", "[red]x  22", ":cat:    3"]
