"""A beamline that needs no hardware: ophyd devices, a cathode that charges, plans and replay."""
