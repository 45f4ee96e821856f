"""One configuration as one file: the package's sources with the settings put in, and what they leave unused taken out.

    link       all modules as one, every global name unique
    fold       constants computed, dead branches cut
    spread     what is constant carried to where it is read: attributes, parameters, locals
    reach      definitions that nothing reachable names are dropped
    script     the whole way, from settings to text

Standard library only, like the settings themselves. None of it is in what it writes.
"""
