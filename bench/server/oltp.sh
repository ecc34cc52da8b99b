#!/bin/sh
# Four clients of PostgreSQL's at once, untimed and then timed; says what they did as bench/io says it.
#
#   oltp.sh ROW SCRIPT WARM MEASURE     SCRIPT: one of pgbench's own; seconds
row=$1 script=$2
clients() {
	"$(echo /usr/lib/postgresql/*/bin)/pgbench" -h /tmp -U postgres -n -b "$script" -c 4 -j 1 -T "$1" bench 2>&1
}
warmed=$(clients "$3") || {
	echo "io failed: $(echo "$warmed" | tail -n 1)"
	exit 1
}
echo "io begin $row"
clients "$4" | awk -v row="$row" '
	/^number of transactions actually processed: / { done = $6 }
	/^number of failed transactions: / { failed = $5 }
	/^tps = / { rate = $3 }
	{ last = $0 }
	END {
		if (rate > 0 && failed == 0) printf "io row %s %d 0 %.0f 0\n", row, done, done / rate * 1e9
		else print "io failed: pgbench: " last
	}'
