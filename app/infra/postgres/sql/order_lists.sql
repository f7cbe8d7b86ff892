-- all: one page of orders, newest first
SELECT * FROM orders
WHERE id >= $1 AND id < $2 AND created_at > $3 AND created_at < $4 ORDER BY id DESC LIMIT $5;

-- of_customer: the same, of one customer
SELECT * FROM orders
WHERE id >= $1 AND id < $2 AND created_at > $3 AND created_at < $4 AND customer_id = $6
ORDER BY id DESC LIMIT $5;

-- in_status: the same, in one status
SELECT * FROM orders
WHERE id >= $1 AND id < $2 AND created_at > $3 AND created_at < $4 AND status = $6
ORDER BY id DESC LIMIT $5;

-- of_customer_in_status: the same, of one customer in one status
SELECT * FROM orders
WHERE id >= $1 AND id < $2 AND created_at > $3 AND created_at < $4 AND customer_id = $6 AND status = $7
ORDER BY id DESC LIMIT $5;

-- settled: those of some orders that are no longer on their way to being confirmed or cancelled
SELECT * FROM orders WHERE id = ANY ($1::text[]) AND status NOT IN ('accepted', 'cancelling');

-- customer: whose an order is
SELECT customer_id FROM orders WHERE id = $1;

-- events: what happened to a subject, after a sequence; $4 is a time before all of it, which spares partitions
SELECT subject, sequence, type, time, correlation_id, traceparent, data FROM events
WHERE subject = $1 AND sequence > $2 AND time >= $4 ORDER BY sequence LIMIT $3;
