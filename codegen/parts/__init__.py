"""The parts of an emitted module that are the same for every pattern, as ordinary Python that can be read,
checked and tested here; ``attnc.codegen.module`` copies their text."""
