#!/usr/bin/env python3
# MG-019  Decimal128: 34 digits, NaN, infinities, -0, trailing zeros, exponent
# expected: Exact text of every value.
from case import *
c=Case('MG-019'); db=c.db
# ---- before the daemon starts
V=['1.10','-0','NaN','Infinity','-Infinity','9.999999999999999999999999999999999E+6144','1E-6176','1234567890123456789012345678901234','0E+3']
db.c.insert_many([{'_id':i,'d':Decimal128(x)} for i,x in enumerate(V)])
c.phase("live")
# ---- while it streams (or while it is down)
db.c.insert_many([{'_id':100+i,'d':Decimal128(x)} for i,x in enumerate(V)])
c.done()
