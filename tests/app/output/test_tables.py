"""Tables that fit the terminal."""

import io

from xas_agent.app.output.tables import print_table


def test_texts_that_no_row_has_are_no_table_of_their_own():
    def printed(flag: str) -> str:
        file = io.StringIO()
        row = ("a spectrum", *["3.21 (2.51…3.91)"] * 3, flag)
        print_table(("spectrum", "OS", "CN", "OCN", "flags"), [row], file, width=70)
        return file.getvalue()

    assert "flags" in printed("glitches repaired")
    assert "flags" not in printed("")
