#!/bin/sh
# Every transaction of pgbench's adds the same amount to an account, a teller and a branch, and notes it.
exec psql -h /tmp -U postgres -At -c "SELECT CASE WHEN
	(SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches) AND
	(SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)
	THEN 'books are right' ELSE 'io failed: what was written is not what is read' END" bench 2>&1
