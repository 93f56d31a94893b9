"""Study `bounded-cfg`: do recurrent networks fail to keep a stack where transformers do not?"""
