# Updates of parts: paths, array elements, numbers as names, pipelines.
from case import *
c = Case('images'); db = c.db
def whole(n):
    return {'_id': n, 'n': n, 'd': {'a': {'b': n, 'c': 'x'}, '0': 'zero'}, 'l': [1, {'k': 'v'}, [3, 4]], 'big': 'b' * 4000}
db.t.insert_many([whole(n) for n in range(1, 13)])
c.phase("live")
db.t.update_one({'_id': 1}, {'$set': {'d.a.b': 'deep', 'd.0': 'named by a number', 'l.1.k': 'in an array'}})
db.t.update_one({'_id': 2}, {'$unset': {'d.a': '', 'big': ''}})
db.t.update_one({'_id': 3}, {'$push': {'l': {'$each': [5, 6], '$position': 0}}})
db.t.update_one({'_id': 4}, {'$pop': {'l': 1}})
db.t.update_one({'_id': 5}, {'$set': {'l': []}, '$inc': {'n': 1.5}})
db.t.update_one({'_id': 6}, {'$set': {'l.5': 'beyond the end'}})
db.t.update_one({'_id': 7}, [{'$set': {'n': {'$add': ['$n', 100]}, 'sum': {'$size': '$l'}}}])
db.t.update_one({'_id': 8}, {'$addToSet': {'l': 1}, '$max': {'n': 99}, '$currentDate': {'at': True}})
db.t.replace_one({'_id': 9}, {'only': 'this'})
db.t.update_one({'_id': 10}, {'$set': {'d': None}})
db.t.update_one({'_id': 11}, {'$set': {'n': 1}}); db.t.update_one({'_id': 11}, {'$set': {'n': 2}}); db.t.delete_one({'_id': 11})
db.t.update_one({'_id': 12}, {'$set': {'n': 12}})
db.t.update_many({'_id': {'$lte': 6}}, {'$set': {'seen': True}})
c.done()
