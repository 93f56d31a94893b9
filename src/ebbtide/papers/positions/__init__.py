"""Study `positions`: do models whose answer is a function of the set of pairs hold up better when prompts shift?"""
