"""Loops are found in a disassembly as they are."""

from loops import innermost_loops

LINES = """
.L_x_0:
        /*0000*/                   IADD3 R1, R1, 0x1, RZ ;
.L_x_1:
        /*0010*/                   LDS.128 R4, [R2] ;
        /*0020*/                   FFMA R8, R4, R5, R8 ;
        /*0030*/               @P0 FFMA R9, R4, R6, R9 ;
        /*0040*/              @!P1 BRA `(.L_x_1) ;
        /*0050*/               @P2 BRA `(.L_x_0) ;
        /*0060*/                   BRA `(.L_x_2) ;
        /*0070*/                   FFMA R9, R4, R6, R9 ;
.L_x_2:
        /*0080*/                   EXIT ;
.L_x_3:
        /*0090*/                   BRA `(.L_x_3);
""".splitlines()


def test_innermost_loops_are_those_without_loops_inside():
    inner, end = innermost_loops(LINES)
    assert inner.names == ("LDS.128", "FFMA", "FFMA", "BRA")
    assert (inner.multiply_adds, inner.share, inner.count("LDS")) == (2, 0.5, 1)
    assert end.names == ("BRA",)
