"""Mutation tests: small faults are put into the modules that decide, and the tests must notice (`make mutants`).

modules      the modules, by what they decide
operators    the faults in Python: cosmic-ray's, and our own for Django's queries
sql          the faults in SQL that stands in strings
mutants      every mutant of a module, and the sample of a run
recording    one run of the tests that notes which lines each test reaches
choosing     the tests of a mutant
worker       a process that tries one mutant after another in a copy of the project
accepted     the survivors that are accepted, with reasons (accepted.toml)
report       what is printed
"""
