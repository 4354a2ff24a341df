-- Three databases, one query: customers and orders are Postgres's, visits MySQL's, reviews MongoDB's.
SELECT c.id, c.name, o.orders, o.turnover, v.visits, v.minutes, r.reviews, r.stars
FROM shop.customers c
JOIN (SELECT customer_id, count(*) AS orders, sum(total) AS turnover FROM shop.orders GROUP BY ALL) o
  ON o.customer_id = c.id
JOIN (SELECT customer_id, count(*) AS visits, round(sum(seconds) / 60) AS minutes FROM web.visits GROUP BY ALL) v
  ON v.customer_id = c.id
JOIN (SELECT customer_id, count(*) AS reviews, round(avg(stars), 1) AS stars FROM feedback.reviews GROUP BY ALL) r
  ON r.customer_id = c.id
ORDER BY turnover DESC LIMIT 5
