"""What the tests of the report put into their runs."""

HOSTILE = "<script>alert(1)</script>"
NAMES = (HOSTILE, "b & <b>bold</b>", "=1+1", '"quoted", \u2028 line', "plain")
EPOCHS = (1, 2, 3, 5, 8, 13)
