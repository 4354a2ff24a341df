#!/usr/bin/env python3
# MG-023  Key order and duplicate keys in one document
# expected: First document keeps order b,a; duplicate key: both in raw BSON (documented choice: last or first), never a crash.
from case import *
c=Case('MG-023'); db=c.db
# ---- before the daemon starts
db.c.insert_one(SON([('_id',1),('b',1),('a',2)]))
c.phase("live")
# ---- while it streams (or while it is down)
import struct
el=lambda k,v: b'\x10'+k.encode()+b'\0'+struct.pack('<i',v)
body=el('_id',2)+el('k',1)+el('k',2)
db.c.insert_one(RawBSONDocument(struct.pack('<i',len(body)+5)+body+b'\0'))
c.done()
