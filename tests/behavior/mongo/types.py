# Every type of BSON with its ends, before and after the start.
from case import *
c = Case('types'); db = c.db
def whole(n, scale):
    return {
        '_id': n, 'i': [-2147483648, 2147483647][scale], 'l': Int64([-9223372036854775808, 9223372036854775807][scale]),
        'f': [-1.7976931348623157e308, 5e-324][scale], 'nan': float('nan'), 'inf': float('-inf'), 'zero': -0.0,
        'dec': Decimal128(['1.10', '-9.999999999999999999999999999999999E+6144'][scale]), 'x': ['', 'Grüße 😀 "q" \\ \n'][scale],
        'o': ObjectId('65' * 12), 'b': bool(scale), 'd': [dt(1, 1, 1), dt(9999, 12, 31, 23, 59, 59, 999000)][scale], 'none': None,
        'bin': Binary(bytes([0, 255])), 'uuid': Binary(bytes(range(16)), 4), 'other': Binary(b'md5', 5),
        'sub': SON([('z', 1), ('a', [1, Int64(1), 1.0, Decimal128('1'), None, SON()])]), 'list': [], 'both': ['text', 7][scale],
        'code': Code('f()'), 'scoped': Code('f(x)', {'x': 1}), 're': Regex('^a/b', 'im'), 'ts': Timestamp(1, 2),
        'ref': DBRef('c', 1), 'min': MinKey(), 'max': MaxKey(),
    }
db.t.insert_many([whole(1, 0), whole(2, 1), {'_id': 3}])
c.phase("live")
db.t.insert_many([whole(101, 1), whole(102, 0), {'_id': 103}])
db.t.update_one({'_id': 1}, {'$set': {'f': 0.30000000000000004, 'd': dt(1969, 12, 31, 23, 59, 59, 1000), 'dec': Decimal128('NaN'), 'sub.a': []}})
db.t.update_one({'_id': 2}, {'$set': {'l': Int64(9007199254740993), 'x': None, 'list': [[[]]]}})
db.t.update_one({'_id': 3}, {'$set': {'i': 0, 'zero': 0.0, 'bin': Binary(b'')}})
c.done()
