"""Study `representations`: does a transformer learn linearly in context on a fixed representation of its inputs?"""
