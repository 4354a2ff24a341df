# Each type that can be an _id, alone in its collection.
from case import *
c = Case('typed_keys'); db = c.db
KEYS = {
    'k_int': [-2147483648, 0, 2147483647],
    'k_long': [Int64(-9223372036854775808), Int64(0), Int64(9223372036854775807)],
    'k_number': [1, Int64(2), 3],
    'k_double': [0.1, -1e308, 5e-324],
    'k_decimal': [Decimal128('1.10'), Decimal128('-9.99E+6144'), Decimal128('1E-6176')],
    'k_text': ['', 'a', '😀'],
    'k_oid': [ObjectId('00' * 12), ObjectId('7f' * 12), ObjectId('ff' * 12)],
    'k_bool': [True, False, 'neither'],
    'k_date': [dt(1, 1, 1), dt(1970, 1, 1), dt(9999, 12, 31)],
    'k_bin': [Binary(b''), Binary(b'\x00'), Binary(b'\xff\x00')],
    'k_uuid': [Binary(bytes(16), 4), Binary(bytes(range(16)), 4), Binary(b'\xff' * 16, 4)],
    'k_stamp': [Timestamp(0, 1), Timestamp(1, 1), Timestamp(4294967295, 4294967295)],
    'k_document': [SON(), SON([('a', 1)]), SON([('a', SON([('b', None)]))])],
}
for name, (first, second, third) in KEYS.items():
    db[name].insert_many([{'_id': first, 'v': 1}, {'_id': second, 'v': 2}])
c.phase("live")
for name, (first, second, third) in KEYS.items():
    db[name].update_one({'_id': first}, {'$set': {'v': 'u'}})
    db[name].delete_one({'_id': second})
    db[name].insert_one({'_id': third, 'v': 3})
    db[name].insert_one({'_id': second, 'v': 'back'})
c.done()
