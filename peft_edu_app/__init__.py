"""What stands around the lessons: opening them, laying out copies, getting real models, handing exercises out and back.

A package of its own, which imports neither PyTorch nor `peft_edu`: `peft-edu lab` is to start at once.
"""
