"""A beamline that needs no hardware: ophyd devices, a cathode that reacts, plans, replay."""
