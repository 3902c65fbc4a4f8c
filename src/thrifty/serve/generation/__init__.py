"""Language models answer many prompts at once: texts join and leave between steps, their keys and values kept in pages.

`Writer` has the batcher's contract, and `write` beside it for texts that are told as they grow:

    writing = writer.write(order, tell)   # from any thread; `tell` hears of pieces, then of the end or an error
    writer.drop(writing)                  # whoever asked has left: its pages are free before the next step
"""
