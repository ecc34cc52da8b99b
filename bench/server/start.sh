#!/bin/sh
# Starts both servers on what make.sh has made.
#
#   start.sh PORT     nginx's
failed() {
	echo "io failed: $1: $(tail -n 1 "$2" | tr -d '\r\n')"
	exit 1
}
sed "s/PORT/$1/" /srv/nginx.conf >/tmp/nginx.conf
/usr/sbin/nginx -e /tmp/nginx.log -c /tmp/nginx.conf || failed nginx /tmp/nginx.log

as=
# PostgreSQL does not run as root.
if [ "$(id -u)" = 0 ]; then
	chown -R postgres:postgres /srv/pg
	as='setpriv --reuid=postgres --regid=postgres --clear-groups'
fi
touch /tmp/pg.log && chmod a+rw /tmp/pg.log
$as "$(echo /usr/lib/postgresql/*/bin)/pg_ctl" -D /srv/pg -w -s -t 200 -l /tmp/pg.log start || failed postgres /tmp/pg.log
echo servers run
