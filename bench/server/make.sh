#!/bin/sh
# Makes what the servers serve, in /srv: nginx's settings and a page, a cluster of PostgreSQL's with pgbench's tables.
#
#   make.sh SCALE     as pgbench has it: so many times 100,000 accounts
set -e
cd /srv
mkdir www nginx
head -c 4096 /dev/zero | tr '\0' x >www/index.html
# One process serves, on every system. A connection is kept as long as the client likes.
cat >nginx.conf <<END
worker_processes 1;
pid /tmp/nginx.pid;
error_log /tmp/nginx.log;
events {
	worker_connections 256;
}
http {
	access_log off;
	sendfile on;
	tcp_nopush on;
	keepalive_requests 1000000000;
	client_body_temp_path /tmp/nginx-body;
	proxy_temp_path /tmp/nginx-proxy;
	fastcgi_temp_path /tmp/nginx-fastcgi;
	uwsgi_temp_path /tmp/nginx-uwsgi;
	scgi_temp_path /tmp/nginx-scgi;
	server {
		listen PORT;
		root /srv/www;
	}
}
END

bin=$(echo /usr/lib/postgresql/*/bin)
"$bin/initdb" --pgdata=pg --username=postgres --auth=trust --encoding=UTF8 --locale=C --no-sync >/dev/null
# All else is as PostgreSQL comes: a commit is on the disk before it is answered.
cat >>pg/postgresql.conf <<END
listen_addresses = ''
unix_socket_directories = '/tmp'
max_wal_size = 128MB
END
"$bin/pg_ctl" -D pg -w -s -l /tmp/pg.log start
"$bin/createdb" -h /tmp -U postgres bench
"$bin/pgbench" -h /tmp -U postgres -i -q -s "$1" bench >/dev/null 2>&1
"$bin/pg_ctl" -D pg -w -s -m fast stop
echo servers made
