# Names with dots, dollars, blanks, capitals, other letters, and none at all.
from case import *
c = Case('names'); db = c.db
db['Größe'].insert_one({'_id': 1, 'a': 1, 'A': 2, 'a b': 3, "it's \"so\"": 4, 'ß': 5, '_doc': 6, '~': 7, 'select': 8})
db['two words.and.dots'].insert_one({'_id': 1, 'ü': 1, '': 'empty'})
db['-x'].insert_one({'_id': 1, '0': 'zero', 'x' * 300: 'long'})
c.phase("live")
db['Größe'].update_one({'_id': 1}, {'$set': {'A': 20, 'ß': None}})
db['Größe'].insert_one({'_id': 2, 'a': 1, 'Ä': 2, 'a\tb': 3})
db['two words.and.dots'].insert_one({'_id': 2, 'ü': 2, '\u2028': 'separator'})
db['-x'].insert_many([{'_id': 2, '0': 'two'}, {'_id': 3, 'a-b': 1, 'a_b': 2}])
c.done()
