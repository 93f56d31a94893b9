"""Study `coopetition`: ICL and CIWL share half of a circuit; one makes the other possible, then takes over."""
