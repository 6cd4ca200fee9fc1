'use strict'
// Every mailer of a bench is this machine: nobody is asked who it is.

exports.hook_lookup_rdns = function (next) {
    next(OK, 'localhost')
}
