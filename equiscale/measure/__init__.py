"""How symmetric a trained model is: any potential of ours and any ASE calculator, on any structures.

model        what is measured, behind one protocol: a checkpoint, an ASE calculator, a Python function
structures   a subset spread over any data             moves   the elements that structures are moved by
decompose    batches of twisted predictions -> found   the parts of the loss, and all else that turns
wrappers     test-time averages, as models           text    tables in words
landscape    Hessians and planes of the two parts -> landscape_text
"""
